// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IGovernor} from "@openzeppelin/contracts/governance/IGovernor.sol";
import {AttributionVerifier} from "../src/AttributionVerifier.sol";
import {IAttributionSettlement} from "../src/interfaces/IAttributionSettlement.sol";
import {IModelRegistry} from "../src/interfaces/IModelRegistry.sol";
import {System} from "./support/System.sol";

contract GovernanceTest is System {
    function setUp() public {
        deployWithMock();
        vm.prank(HOLDER);
        open.delegate(HOLDER);
        vm.warp(block.timestamp + 1);
    }

    struct Decision {
        address[] targets;
        uint256[] values;
        bytes[] calls;
    }

    function decision() private returns (Decision memory d) {
        d.targets = new address[](3);
        d.values = new uint256[](3);
        d.calls = new bytes[](3);
        d.targets[0] = d.targets[2] = address(settlement);
        d.targets[1] = address(models);
        AttributionVerifier next = new AttributionVerifier(verifier.raw(), KEY, 32, 1);
        IAttributionSettlement.Split memory s = IAttributionSettlement.Split(0, 1000, 0, 9000, address(timelock), address(0));
        d.calls[0] = abi.encodeCall(IAttributionSettlement.setSplit, (s));
        d.calls[1] = abi.encodeCall(IModelRegistry.setVerifier, (KEY, next));
        d.calls[2] = abi.encodeCall(IAttributionSettlement.pause, (1 days));
    }

    function pass(Decision memory d) private returns (bytes32 description) {
        description = keccak256("a change");
        vm.prank(HOLDER);
        uint256 id = governor.propose(d.targets, d.values, d.calls, "a change");
        vm.warp(block.timestamp + governor.votingDelay() + 1);
        vm.prank(HOLDER);
        governor.castVote(id, 1);
        vm.warp(block.timestamp + governor.votingPeriod() + 1);
        governor.queue(d.targets, d.values, d.calls, description);
    }

    function test_holdersChangeSplitVerifierAndPauseAfterTheDelay() public {
        Decision memory d = decision();
        bytes32 description = pass(d);
        vm.expectRevert();
        governor.execute(d.targets, d.values, d.calls, description);
        equal(settlement.currentSplit(), 1, "not before the delay");
        vm.warp(block.timestamp + DELAY);
        vm.prank(STRANGER);
        governor.execute(d.targets, d.values, d.calls, description);
        equal(settlement.currentSplit(), 2, "split");
        equal(settlement.split(2).contributorsBps, 9000, "shares");
        check(address(models.verifiers(KEY)) != address(verifier), "verifier");
        check(settlement.pausedUntil() > block.timestamp, "pause");
    }

    function test_withoutVotesNothingPasses() public {
        Decision memory d = decision();
        vm.prank(HOLDER);
        uint256 id = governor.propose(d.targets, d.values, d.calls, "a change");
        vm.warp(block.timestamp + governor.votingDelay() + governor.votingPeriod() + 2);
        equal(uint256(governor.state(id)), uint256(IGovernor.ProposalState.Defeated), "no quorum");
        vm.prank(STRANGER);
        vm.expectPartialRevert(IGovernor.GovernorInsufficientProposerVotes.selector);
        governor.propose(d.targets, d.values, d.calls, "another");
    }

    function test_nobodyButTheGovernorHasARole() public view {
        address self = address(this);
        bytes32 admin = timelock.DEFAULT_ADMIN_ROLE();
        check(timelock.hasRole(timelock.PROPOSER_ROLE(), address(governor)), "governor proposes");
        check(timelock.hasRole(timelock.EXECUTOR_ROLE(), address(0)), "anyone executes");
        check(!timelock.hasRole(admin, self) && !timelock.hasRole(admin, HOLDER), "no administrator");
        check(!timelock.hasRole(timelock.PROPOSER_ROLE(), self), "the deployer proposes nothing");
        check(timelock.hasRole(admin, address(timelock)), "the timelock administers itself");
        equal(settlement.owner(), address(timelock), "settlement");
        equal(models.owner(), address(timelock), "models");
        equal(settlement.guardian(), address(0), "no guardian yet");
    }

    /// What `poa deploy` does unless told otherwise: the platform's share is governance's, and whoever deploys has nothing to vote with.
    function test_theDeployerHasNoVotesAndNoShare() public view {
        address self = address(this);
        equal(open.balanceOf(self), 0, "no tokens");
        equal(open.getVotes(self), 0, "no votes");
        IAttributionSettlement.Split memory s = settlement.split(settlement.currentSplit());
        check(s.platform != self && s.stakers != self && pool.fallbackAccount() != self, "no share");
        check(settlement.guardian() != self, "no pause");
    }

    /// The owner's functions are those three and the guardian's appointment: none moves money.
    function test_theOwnerCannotTakeEscrowedMoney() public {
        uint64 modelId = registerModel(2);
        bytes32 id = escrow(modelId, OPEN, 1000);
        vm.startPrank(address(timelock));
        vm.expectPartialRevert(IAttributionSettlement.NothingToWithdraw.selector);
        settlement.withdraw(OPEN, STRANGER);
        vm.expectPartialRevert(IAttributionSettlement.DeadlineNotPassed.selector);
        settlement.refund(id);
        settlement.pause(30 days);
        settlement.renounceOwnership();
        vm.stopPrank();
        vm.warp(block.timestamp + 31 days + 1);
        settlement.refund(id);
        vm.prank(PAYER);
        settlement.withdraw(OPEN, PAYER);
        equal(open.balanceOf(PAYER), 1000, "refunded");
    }

    function test_permit() public {
        uint256 key = 0xa11ce;
        address owner = vm.addr(key);
        bytes32 typeHash = keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");
        bytes32 message = keccak256(abi.encode(typeHash, owner, address(settlement), 5, open.nonces(owner), block.timestamp));
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, keccak256(abi.encodePacked(hex"1901", open.DOMAIN_SEPARATOR(), message)));
        open.permit(owner, address(settlement), 5, block.timestamp, v, r, s);
        equal(open.allowance(owner, address(settlement)), 5, "allowance");
    }

    function test_votesFollowTokens() public {
        equal(open.getVotes(HOLDER), SUPPLY, "delegated");
        vm.prank(HOLDER);
        open.transfer(STRANGER, 7);
        equal(open.getVotes(HOLDER), SUPPLY - 7, "moved");
        equal(open.totalSupply(), SUPPLY, "fixed supply");
    }
}
