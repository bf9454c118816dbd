// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {AttributionVerifier} from "../src/AttributionVerifier.sol";
import {IAttributionVerifier} from "../src/interfaces/IAttributionVerifier.sol";
import {IDatanetRegistry} from "../src/interfaces/IDatanetRegistry.sol";
import {IModelRegistry} from "../src/interfaces/IModelRegistry.sol";
import {IndexStatement} from "../src/libraries/IndexStatement.sol";
import {Scalar} from "../src/libraries/Scalar.sol";
import {System} from "./support/System.sol";

contract ModelRegistryTest is System {
    uint64 private datanetId;

    function setUp() public {
        deployWithMock();
        datanetId = publishDatanet(3);
    }

    function registration() private view returns (IModelRegistry.Registration memory) {
        return IModelRegistry.Registration(bytes32(uint256(1)), bytes32(uint256(2)), bytes32(uint256(3)), KEY, datanetId, 1, PAYEE);
    }

    function digest(IndexStatement.Provenance memory p, string[] calldata names) external pure returns (bytes32) {
        return IndexStatement.digest(p, names);
    }

    /// The same file is checked by circuits/tests/index_statement_vector.rs against `IndexStatement::digest`.
    function test_indexDigestIsTheRustOne() public view {
        string memory json = vm.readFile("test/vectors/index-statement.json");
        IndexStatement.Provenance memory p = IndexStatement.Provenance({
            index: vm.parseJsonBytes32(json, ".commitment"),
            base: vm.parseJsonBytes32(json, ".base"),
            adapter: vm.parseJsonBytes32(json, ".adapter"),
            datanetRoot: vm.parseJsonBytes32(json, ".datanet_root"),
            datanetVersion: uint64(vm.parseJsonUint(json, ".datanet_version"))
        });
        string[] memory names = vm.parseJsonStringArray(json, ".contributors");
        equal(this.digest(p, names), vm.parseJsonBytes32(json, ".digest"), "digest");
    }

    function testFuzz_indexDigestEqualsThePlainEncoding(bytes32 a, bytes32 b, uint64 v, string[] memory names) public view {
        bytes memory plain = abi.encodePacked(uint64(9), "poa/index", uint64(32), a, uint64(32), b);
        plain = abi.encodePacked(plain, uint64(32), a, uint64(32), b, v, uint64(names.length));
        for (uint256 i = 0; i < names.length; ++i) {
            plain = abi.encodePacked(plain, uint64(bytes(names[i]).length), names[i]);
        }
        equal(this.digest(IndexStatement.Provenance(a, b, a, b, v), names), keccak256(plain), "digest");
    }

    function test_aModelIsWhatWasStatedAndTheDigestIsComputed() public {
        vm.prank(MODEL_OWNER);
        uint64 id = models.register(registration(), contributorNames(3));
        IModelRegistry.Model memory m = models.model(id);
        equal(m.base, bytes32(uint256(1)), "base");
        equal(m.adapter, bytes32(uint256(2)), "adapter");
        equal(m.index, bytes32(uint256(3)), "index");
        equal(m.contributors, 3, "contributors");
        equal(m.owner, MODEL_OWNER, "owner");
        equal(m.payee, PAYEE, "payee");
        bytes32 root = datanets.version(datanetId, 1).root;
        IndexStatement.Provenance memory p = IndexStatement.Provenance(m.index, m.base, m.adapter, root, 1);
        equal(m.indexDigest, uint256(this.digest(p, contributorNames(3))) & ((1 << 253) - 1), "index digest");
        (IAttributionVerifier serving, address payee) = models.serviceOf(id);
        equal(address(serving), address(verifier), "verifier");
        equal(payee, PAYEE, "payee of requests");
    }

    function test_namesMustBeTheVersionsInItsOrder() public {
        string[] memory names = contributorNames(3);
        (names[0], names[1]) = (names[1], names[0]);
        vm.expectPartialRevert(IModelRegistry.NamesDiffer.selector);
        models.register(registration(), names);
        vm.expectPartialRevert(IModelRegistry.NamesDiffer.selector);
        models.register(registration(), contributorNames(2));
        vm.expectPartialRevert(IModelRegistry.NamesDiffer.selector);
        models.register(registration(), contributorNames(4));
    }

    function test_badRegistrationsAreRefused() public {
        string[] memory names = contributorNames(3);
        bytes32 order = bytes32(Scalar.ORDER);
        IModelRegistry.Registration memory r = registration();
        r.base = order;
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.InvalidCommitment.selector, order));
        models.register(r, names);
        r = registration();
        r.adapter = 0;
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.InvalidCommitment.selector, bytes32(0)));
        models.register(r, names);
        r = registration();
        r.index = bytes32(type(uint256).max);
        vm.expectPartialRevert(IModelRegistry.InvalidCommitment.selector);
        models.register(r, names);
        r = registration();
        r.payee = address(0);
        vm.expectRevert(IModelRegistry.NoPayee.selector);
        models.register(r, names);
        r = registration();
        r.datanetVersion = 2;
        vm.expectRevert(abi.encodeWithSelector(IDatanetRegistry.UnknownVersion.selector, datanetId, 2));
        models.register(r, names);
    }

    function test_onlyTheOwnerRetires() public {
        vm.prank(MODEL_OWNER);
        uint64 id = models.register(registration(), contributorNames(3));
        vm.prank(STRANGER);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.NotModelOwner.selector, id, STRANGER));
        models.retire(id);
        vm.prank(MODEL_OWNER);
        models.retire(id);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.Retired.selector, id));
        models.serviceOf(id);
        vm.prank(MODEL_OWNER);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.Retired.selector, id));
        models.retire(id);
    }

    function test_unknownModels() public {
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.UnknownModel.selector, 5));
        models.model(5);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.UnknownModel.selector, 5));
        models.serviceOf(5);
    }

    function test_onlyGovernanceSetsVerifiers() public {
        vm.expectRevert(abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, address(this)));
        models.setVerifier(KEY, verifier);
        bytes32 other = keccak256("other");
        vm.prank(address(timelock));
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.KeyMismatch.selector, other, KEY));
        models.setVerifier(other, verifier);
        AttributionVerifier next = new AttributionVerifier(verifier.raw(), KEY, 32, 1);
        vm.prank(address(timelock));
        models.setVerifier(KEY, next);
        equal(address(models.verifiers(KEY)), address(next), "verifier");
        vm.prank(MODEL_OWNER);
        uint64 id = models.register(registration(), contributorNames(3));
        vm.prank(address(timelock));
        models.setVerifier(KEY, IAttributionVerifier(address(0)));
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.NoVerifier.selector, KEY));
        models.serviceOf(id);
    }
}
