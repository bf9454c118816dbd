// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {DatanetRegistry} from "../src/DatanetRegistry.sol";
import {IDatanetRegistry} from "../src/interfaces/IDatanetRegistry.sol";
import {Test} from "./support/Test.sol";

contract DatanetRegistryTest is Test {
    address private constant ALICE = address(0xa11ce);
    address private constant BOB = address(0xb0b);

    DatanetRegistry private registry;
    uint64 private datanet;

    function setUp() public {
        registry = new DatanetRegistry();
        datanet = registry.create("recipes");
    }

    function contribute(address who, string memory name) private returns (uint64) {
        vm.prank(who);
        return registry.contribute(datanet, keccak256(abi.encode(who, name)), "CC0", name);
    }

    function approved(address who, string memory name) private returns (uint64 id) {
        id = contribute(who, name);
        registry.approve(id);
    }

    function list(uint64 a) private pure returns (uint64[] memory ids) {
        ids = new uint64[](1);
        ids[0] = a;
    }

    function list(uint64 a, uint64 b, uint64 c) private pure returns (uint64[] memory ids) {
        ids = new uint64[](3);
        (ids[0], ids[1], ids[2]) = (a, b, c);
    }

    function test_publishedVersionListsContributorsByFirstAppearance() public {
        uint64 b1 = approved(BOB, "bob");
        uint64 a = approved(ALICE, "alice");
        uint64 b2 = approved(BOB, "bob");
        uint64 number = registry.publish(datanet, bytes32(uint256(7)), "CC-BY-4.0", list(b1, a, b2));
        equal(number, 1, "version");
        address[] memory accounts = registry.contributors(datanet, number);
        equal(accounts.length, 2, "contributors");
        equal(accounts[0], BOB, "first");
        equal(accounts[1], ALICE, "second");
        IDatanetRegistry.Version memory v = registry.version(datanet, number);
        equal(v.root, bytes32(uint256(7)), "root");
        equal(v.licenceHash, keccak256("CC-BY-4.0"), "licence");
        equal(v.contributors, 2, "count");
        equal(registry.contributorAt(v.listId, 1), ALICE, "by number");
        string[] memory names = new string[](2);
        (names[0], names[1]) = ("bob", "alice");
        equal(v.namesDigest, registry.namesDigest(names), "names");
        (names[0], names[1]) = ("alice", "bob");
        check(v.namesDigest != registry.namesDigest(names), "the order of names counts");
    }

    function test_draftsAddUpAndVersionsStay() public {
        uint64 a = approved(ALICE, "alice");
        uint64 b = approved(BOB, "bob");
        registry.draft(datanet, list(a));
        registry.publish(datanet, bytes32(uint256(1)), "CC0", list(b));
        uint64 second = registry.publish(datanet, bytes32(uint256(2)), "CC0", list(b));
        equal(registry.contributors(datanet, 1).length, 2, "version 1");
        equal(registry.contributors(datanet, second)[0], BOB, "version 2 starts anew");
        (address owner, uint64 versions) = registry.datanet(datanet);
        equal(owner, address(this), "owner");
        equal(versions, 2, "versions");
    }

    function test_aDiscardedDraftIsGone() public {
        registry.draft(datanet, list(approved(ALICE, "alice")));
        registry.discardDraft(datanet);
        uint64 b = approved(BOB, "bob");
        registry.publish(datanet, bytes32(uint256(1)), "CC0", list(b));
        equal(registry.contributors(datanet, 1).length, 1, "contributors");
    }

    function test_onlyApprovedContributionsOfThisDatanetCount() public {
        uint64 pending = contribute(ALICE, "alice");
        IDatanetRegistry.Status wanted = IDatanetRegistry.Status.Approved;
        expectStatus(pending, wanted, IDatanetRegistry.Status.Pending);
        registry.publish(datanet, bytes32(uint256(1)), "CC0", list(pending));
        registry.reject(pending);
        expectStatus(pending, wanted, IDatanetRegistry.Status.Rejected);
        registry.publish(datanet, bytes32(uint256(1)), "CC0", list(pending));
        uint64 here = approved(ALICE, "alice");
        uint64 other = registry.create("other");
        expectStatus(here, wanted, IDatanetRegistry.Status.None);
        registry.publish(other, bytes32(uint256(1)), "CC0", list(here));
        expectStatus(99, wanted, IDatanetRegistry.Status.None);
        registry.publish(datanet, bytes32(uint256(1)), "CC0", list(99));
    }

    function expectStatus(uint64 id, IDatanetRegistry.Status expected, IDatanetRegistry.Status found) private {
        vm.expectRevert(abi.encodeWithSelector(IDatanetRegistry.UnexpectedStatus.selector, id, expected, found));
    }

    function test_aContributionIsDecidedOnce() public {
        uint64 id = approved(ALICE, "alice");
        expectStatus(id, IDatanetRegistry.Status.Pending, IDatanetRegistry.Status.Approved);
        registry.approve(id);
        expectStatus(id, IDatanetRegistry.Status.Pending, IDatanetRegistry.Status.Approved);
        registry.reject(id);
        equal(uint256(registry.contribution(id).status), uint256(IDatanetRegistry.Status.Approved), "status");
    }

    function test_aNameBelongsToItsFirstApprovedHolder() public {
        approved(ALICE, "alice");
        uint64 copy = contribute(BOB, "alice");
        vm.expectRevert(abi.encodeWithSelector(IDatanetRegistry.NameTaken.selector, keccak256("alice"), ALICE));
        registry.approve(copy);
        equal(registry.nameHolder(datanet, keccak256("alice")), ALICE, "holder");
        registry.reject(copy);
    }

    /// Somebody has offered samples under Alice's name before she did, and was approved by mistake.
    function test_aNameCanBeCorrectedForLaterVersions() public {
        uint64 wrong = approved(BOB, "alice");
        uint64 first = registry.publish(datanet, bytes32(uint256(1)), "CC0", list(wrong));
        uint64 right = contribute(ALICE, "alice");
        registry.draft(datanet, list(wrong));
        vm.expectEmit(true, true, true, true, address(registry));
        emit IDatanetRegistry.NameCorrected(datanet, right, BOB, ALICE);
        registry.correct(right);
        equal(registry.nameHolder(datanet, keccak256("alice")), ALICE, "holder");
        equal(uint256(registry.contribution(right).status), uint256(IDatanetRegistry.Status.Approved), "approved");
        vm.expectRevert(abi.encodeWithSelector(IDatanetRegistry.NameTaken.selector, keccak256("alice"), ALICE));
        registry.publish(datanet, bytes32(uint256(2)), "CC0", list(wrong));
        uint64 second = registry.publish(datanet, bytes32(uint256(2)), "CC0", list(right));
        address[] memory accounts = registry.contributors(datanet, second);
        equal(accounts.length, 1, "the draft with the wrong account is gone");
        equal(accounts[0], ALICE, "later versions");
        equal(registry.contributors(datanet, first)[0], BOB, "earlier versions stay");
        registry.correct(wrong);
        equal(registry.nameHolder(datanet, keccak256("alice")), BOB, "and back");
    }

    function test_correctionsAreTheOwnersAndNeedAMistake() public {
        uint64 id = contribute(ALICE, "alice");
        vm.expectRevert(abi.encodeWithSelector(IDatanetRegistry.NothingToCorrect.selector, keccak256("alice"), address(0)));
        registry.correct(id);
        registry.approve(id);
        vm.expectRevert(abi.encodeWithSelector(IDatanetRegistry.NothingToCorrect.selector, keccak256("alice"), ALICE));
        registry.correct(id);
        uint64 other = contribute(BOB, "alice");
        vm.prank(BOB);
        vm.expectRevert(abi.encodeWithSelector(IDatanetRegistry.NotDatanetOwner.selector, datanet, BOB));
        registry.correct(other);
        registry.reject(other);
        expectStatus(other, IDatanetRegistry.Status.Pending, IDatanetRegistry.Status.Rejected);
        registry.correct(other);
        vm.expectRevert(abi.encodeWithSelector(IDatanetRegistry.NotDatanetOwner.selector, 0, address(this)));
        registry.correct(99);
    }

    function test_onlyTheOwnerDecides() public {
        uint64 id = contribute(ALICE, "alice");
        bytes memory refused = abi.encodeWithSelector(IDatanetRegistry.NotDatanetOwner.selector, datanet, BOB);
        vm.startPrank(BOB);
        vm.expectRevert(refused);
        registry.approve(id);
        vm.expectRevert(refused);
        registry.reject(id);
        vm.expectRevert(refused);
        registry.draft(datanet, list(id));
        vm.expectRevert(refused);
        registry.discardDraft(datanet);
        vm.expectRevert(refused);
        registry.publish(datanet, bytes32(uint256(1)), "CC0", list(id));
        vm.stopPrank();
    }

    function test_emptyAndUnknownThingsAreRefused() public {
        vm.expectRevert(abi.encodeWithSelector(IDatanetRegistry.ContributorCount.selector, 0));
        registry.publish(datanet, bytes32(uint256(1)), "CC0", new uint64[](0));
        vm.expectRevert(IDatanetRegistry.EmptyRoot.selector);
        registry.publish(datanet, 0, "CC0", new uint64[](0));
        vm.expectRevert(IDatanetRegistry.EmptyRoot.selector);
        registry.contribute(datanet, 0, "CC0", "alice");
        vm.expectRevert(abi.encodeWithSelector(IDatanetRegistry.UnknownDatanet.selector, 9));
        registry.contribute(9, bytes32(uint256(1)), "CC0", "alice");
        vm.expectRevert(abi.encodeWithSelector(IDatanetRegistry.NameLength.selector, 0));
        registry.contribute(datanet, bytes32(uint256(1)), "CC0", "");
        vm.expectRevert(abi.encodeWithSelector(IDatanetRegistry.NameLength.selector, 65));
        registry.contribute(datanet, bytes32(uint256(1)), "CC0", string(new bytes(65)));
        vm.expectRevert(abi.encodeWithSelector(IDatanetRegistry.UnknownVersion.selector, datanet, 1));
        registry.version(datanet, 1);
        vm.expectRevert(abi.encodeWithSelector(IDatanetRegistry.UnknownContributor.selector, 0));
        registry.contributorAt(77, 0);
    }
}
