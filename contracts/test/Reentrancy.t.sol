// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {IAttributionSettlement} from "../src/interfaces/IAttributionSettlement.sol";
import {IStakingPool} from "../src/interfaces/IStakingPool.sol";
import {System} from "./support/System.sol";

/// @notice Takes ether and calls back.
contract Reentrant {
    address private target;
    bytes private payload;
    bool public succeeded;
    bytes public answer;
    bool private armed;

    function arm(address target_, bytes calldata payload_) external {
        (target, payload, armed) = (target_, payload_, true);
    }

    function run(address to, bytes calldata data, uint256 value) external returns (bytes memory) {
        (bool done, bytes memory result) = to.call{value: value}(data);
        if (!done) {
            assembly {
                revert(add(result, 32), mload(result))
            }
        }
        return result;
    }

    receive() external payable {
        if (!armed) return;
        armed = false;
        (succeeded, answer) = target.call(payload);
    }
}

contract Refusing {
    function withdraw(IAttributionSettlement settlement, address to) external {
        settlement.withdraw(IAttributionSettlement.Asset.Ether, to);
    }

    function escrow(IAttributionSettlement settlement, IAttributionSettlement.Terms calldata t) external payable returns (bytes32) {
        return settlement.escrow{value: msg.value}(t);
    }
}

contract ReentrancyTest is System {
    Reentrant private attacker;
    uint64 private modelId;
    uint256[] private weights;
    bytes32 private first;
    bytes32 private second;

    function setUp() public {
        deployWithMock();
        modelId = registerModel(2);
        weights = exampleWeights(2);
        attacker = new Reentrant();
        vm.deal(address(attacker), 2 ether);
        first = escrowAsAttacker();
        second = escrowAsAttacker();
        // Somebody else's money, which the attacker is after.
        escrow(modelId, ETHER, 10 ether);
        vm.warp(block.timestamp + 1 days + 1);
        settlement.refund(first);
    }

    function escrowAsAttacker() private returns (bytes32) {
        bytes memory call = abi.encodeCall(IAttributionSettlement.escrow, terms(modelId, ETHER, 1 ether));
        return abi.decode(attacker.run(address(settlement), call, 1 ether), (bytes32));
    }

    function withdrawCall() private view returns (bytes memory) {
        return abi.encodeCall(IAttributionSettlement.withdraw, (ETHER, address(attacker)));
    }

    function attack(bytes memory payload) private {
        attacker.arm(address(settlement), payload);
        attacker.run(address(settlement), withdrawCall(), 0);
        check(address(attacker).balance == 1 ether, "its own ether and no more");
        check(address(settlement).balance == 11 ether, "the rest is there");
    }

    function requireGuarded(bytes memory payload) private {
        attack(payload);
        check(!attacker.succeeded(), "refused");
        equal(bytes32(attacker.answer()), bytes32(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector), "by the guard");
    }

    function test_withdrawFromWithin() public {
        requireGuarded(withdrawCall());
    }

    function test_settleFromWithin() public {
        requireGuarded(abi.encodeCall(IAttributionSettlement.settle, (second, digests(1, 2), weights, "")));
    }

    function test_escrowFromWithin() public {
        requireGuarded(abi.encodeCall(IAttributionSettlement.escrow, terms(modelId, ETHER, 1 ether)));
    }

    /// Refunding from within credits what would be credited anyway, once.
    function test_refundFromWithin() public {
        attack(abi.encodeCall(IAttributionSettlement.refund, (second)));
        check(attacker.succeeded(), "allowed");
        equal(settlement.claimable(ETHER, address(attacker)), 1 ether, "credited once");
        attacker.run(address(settlement), withdrawCall(), 0);
        equal(address(attacker).balance, 2 ether, "what it put in");
    }

    function test_claimFromWithinAClaim() public {
        vm.prank(HOLDER);
        open.transfer(address(attacker), 100);
        attacker.run(address(open), abi.encodeCall(open.approve, (address(pool), 100)), 0);
        attacker.run(address(pool), abi.encodeCall(IStakingPool.stake, (100)), 0);
        bytes32 id = escrow(modelId, ETHER, 1 ether);
        settle(id, weights);
        pool.pull(ETHER);
        vm.warp(block.timestamp + pool.STREAM());
        bytes memory claim = abi.encodeCall(IStakingPool.claim, (ETHER, address(attacker)));
        attacker.arm(address(pool), claim);
        attacker.run(address(pool), claim, 0);
        check(!attacker.succeeded(), "refused");
        equal(address(attacker).balance, 0.05 ether, "one share");
    }

    /// A receiver that takes no ether holds up nobody but itself, and can name another.
    function test_aRefusingReceiverHoldsUpNobody() public {
        Refusing refusing = new Refusing();
        vm.deal(address(this), 1 ether);
        bytes32 id = refusing.escrow{value: 1 ether}(settlement, terms(modelId, ETHER, 1 ether));
        vm.warp(block.timestamp + 2 days);
        settlement.refund(id);
        vm.expectRevert(abi.encodeWithSelector(IAttributionSettlement.TransferFailed.selector, address(refusing)));
        refusing.withdraw(settlement, address(refusing));
        refusing.withdraw(settlement, address(0xbeef));
        equal(address(0xbeef).balance, 1 ether, "sent elsewhere");
    }
}
