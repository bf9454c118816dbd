// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {StakingPool} from "../src/StakingPool.sol";
import {IAttributionSettlement} from "../src/interfaces/IAttributionSettlement.sol";
import {IStakingPool} from "../src/interfaces/IStakingPool.sol";
import {System} from "./support/System.sol";

contract StakingPoolTest is System {
    address private constant ALICE = address(0xa11ce);
    address private constant BOB = address(0xb0b);

    uint64 private modelId;

    function setUp() public {
        deployWithMock();
        modelId = registerModel(1);
    }

    function stake(address who, uint256 amount) private {
        vm.prank(HOLDER);
        open.transfer(who, amount);
        vm.startPrank(who);
        open.approve(address(pool), amount);
        pool.stake(amount);
        vm.stopPrank();
    }

    /// A settlement whose stakers' share is `amount`.
    function reward(uint256 amount) private {
        settle(escrow(modelId, ETHER, amount * 20), exampleWeights(1));
    }

    function claim(address who) private returns (uint256) {
        vm.prank(who);
        return pool.claim(ETHER, who);
    }

    function test_rewardsAreDividedByStake() public {
        stake(ALICE, 100);
        stake(BOB, 300);
        reward(1 ether);
        equal(claim(ALICE), 0.25 ether, "a quarter");
        equal(claim(BOB), 0.75 ether, "three quarters");
        equal(ALICE.balance, 0.25 ether, "received");
        vm.prank(BOB);
        vm.expectRevert(abi.encodeWithSelector(IStakingPool.NothingToClaim.selector, ETHER, BOB));
        pool.claim(ETHER, BOB);
    }

    function test_rewardsInOpenDontTouchStakes() public {
        stake(ALICE, 1000);
        settle(escrow(modelId, OPEN, 20_000), exampleWeights(1));
        pool.pull(OPEN);
        equal(open.balanceOf(address(pool)), 2000, "stake and reward");
        equal(pool.claimable(OPEN, ALICE), 1000, "reward");
        vm.prank(ALICE);
        pool.claim(OPEN, ALICE);
        equal(pool.totalStaked(), 1000, "stake");
        equal(open.balanceOf(address(pool)), 1000, "stake stays");
    }

    function test_earlierRewardsBelongToEarlierStakes() public {
        stake(ALICE, 100);
        reward(1 ether);
        stake(BOB, 100);
        reward(1 ether);
        equal(claim(ALICE), 1.5 ether, "all of the first, half of the second");
        equal(claim(BOB), 0.5 ether, "half of the second");
    }

    /// Staking around one settlement costs the cooldown, during which the stake earns nothing.
    function test_leavingStakeEarnsNothingAndWaits() public {
        stake(ALICE, 100);
        stake(BOB, 100);
        vm.prank(BOB);
        pool.startUnstake(100);
        reward(1 ether);
        vm.startPrank(BOB);
        vm.expectRevert(abi.encodeWithSelector(IStakingPool.NothingToClaim.selector, ETHER, BOB));
        pool.claim(ETHER, BOB);
        vm.expectRevert(abi.encodeWithSelector(IStakingPool.CoolingDown.selector, block.timestamp + COOLDOWN));
        pool.unstake();
        vm.warp(block.timestamp + COOLDOWN);
        equal(pool.unstake(), 100, "paid out");
        vm.expectRevert(IStakingPool.NoAmount.selector);
        pool.unstake();
        vm.stopPrank();
        equal(open.balanceOf(BOB), 100, "received");
        equal(claim(ALICE), 1 ether, "the one who stayed");
    }

    function test_rewardsWithoutStakersGoToTheFallback() public {
        reward(1 ether);
        stake(ALICE, 1);
        equal(pool.claimable(ETHER, ALICE), 0, "not to the first to come");
        equal(pool.claimable(ETHER, address(timelock)), 1 ether, "to the fallback");
    }

    function test_amountsAreChecked() public {
        vm.startPrank(ALICE);
        vm.expectRevert(IStakingPool.NoAmount.selector);
        pool.stake(0);
        vm.expectRevert(IStakingPool.NoAmount.selector);
        pool.startUnstake(0);
        vm.expectRevert(abi.encodeWithSelector(IStakingPool.InsufficientStake.selector, 0, 1));
        pool.startUnstake(1);
        vm.deal(ALICE, 1);
        vm.expectRevert(abi.encodeWithSelector(IStakingPool.UnexpectedEther.selector, ALICE));
        (bool sent,) = address(pool).call{value: 1}("");
        check(sent, "expectRevert says so when it reverts");
        vm.stopPrank();
    }

    function test_nobodyIsNoReceiver() public {
        stake(ALICE, 1);
        reward(1 ether);
        vm.prank(ALICE);
        vm.expectRevert(abi.encodeWithSelector(IStakingPool.TransferFailed.selector, address(0)));
        pool.claim(ETHER, address(0));
        vm.prank(PLATFORM);
        vm.expectRevert(abi.encodeWithSelector(IAttributionSettlement.TransferFailed.selector, address(0)));
        settlement.withdraw(ETHER, address(0));
        vm.expectRevert(IStakingPool.NoFallback.selector);
        new StakingPool(open, settlement, address(0), 1);
    }

    function testFuzz_neverMoreThanWasPulled(uint64[4] memory stakes, uint64[4] memory rewards) public {
        uint256 total;
        for (uint256 i = 0; i < 4; ++i) {
            stake(address(uint160(0x500 + i)), uint256(stakes[i]) + 1);
            reward(uint256(rewards[i]) + 1);
            total += uint256(rewards[i]) + 1;
        }
        pool.pull(ETHER);
        equal(address(pool).balance, total, "pulled");
        uint256 owed;
        for (uint256 i = 0; i < 4; ++i) {
            owed += pool.claimable(ETHER, address(uint160(0x500 + i)));
        }
        check(owed <= total && total - owed <= 8, "all but rounding");
    }
}
