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

    /// Until everything that has been pulled is paid out.
    function wait() private {
        pool.pull(ETHER);
        pool.pull(OPEN);
        vm.warp(block.timestamp + pool.STREAM());
    }

    /// Rewards are divided with 96 bits after the point: a wei less than the share.
    function nearly(uint256 found, uint256 expected, string memory what) private pure {
        check(found <= expected && expected - found <= 2, what);
    }

    function claim(address who) private returns (uint256) {
        vm.prank(who);
        return pool.claim(ETHER, who);
    }

    function test_rewardsAreDividedByStake() public {
        stake(ALICE, 100);
        stake(BOB, 300);
        reward(1 ether);
        wait();
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
        wait();
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
        wait();
        stake(BOB, 100);
        reward(1 ether);
        wait();
        equal(claim(ALICE), 1.5 ether, "all of the first, half of the second");
        equal(claim(BOB), 0.5 ether, "half of the second");
    }

    /// The attack: see a large settlement coming, stake a hundred times what all others have, and leave in the next block.
    function test_stakingForABlockEarnsABlocksPart() public {
        stake(ALICE, 100);
        stake(BOB, 9900);
        reward(1 ether);
        pool.pull(ETHER);
        vm.startPrank(BOB);
        vm.expectRevert(abi.encodeWithSelector(IStakingPool.NothingToClaim.selector, ETHER, BOB));
        pool.claim(ETHER, BOB);
        vm.warp(block.timestamp + 12);
        pool.startUnstake(9900);
        vm.stopPrank();
        nearly(claim(BOB), uint256(1 ether) * 12 * 99 / 100 / 7 days, "twelve seconds of seven days");
        wait();
        check(claim(ALICE) > 0.9999 ether, "the one who stayed");
    }

    /// A share that lies in the settlement uncollected is no one's yet: staking just before it is pulled earns from then on, like everyone.
    function test_stakingBeforeAPullEarnsFromThenOn() public {
        stake(ALICE, 100);
        reward(1 ether);
        vm.warp(block.timestamp + 30 days);
        stake(BOB, 300);
        equal(pool.claimable(ETHER, BOB), 0, "nothing yet");
        vm.warp(block.timestamp + 3.5 days);
        nearly(pool.claimable(ETHER, BOB), 0.375 ether, "three quarters of half");
        nearly(claim(ALICE), 0.125 ether, "a quarter of half");
    }

    /// Crumbs don't hold up what is on its way.
    function test_smallSharesDontStretchTheStream() public {
        stake(ALICE, 100);
        reward(1 ether);
        pool.pull(ETHER);
        uint256 start = block.timestamp;
        for (uint256 i = 1; i <= 7; ++i) {
            vm.warp(start + i * 1 days - 1);
            reward(20);
            pool.pull(ETHER);
        }
        vm.warp(start + 7 days + 1);
        check(claim(ALICE) > 0.99999 ether, "on time");
    }

    function test_sharesOverlap() public {
        stake(ALICE, 100);
        reward(1 ether);
        pool.pull(ETHER);
        vm.warp(block.timestamp + 3.5 days);
        reward(0.5 ether);
        pool.pull(ETHER);
        nearly(pool.claimable(ETHER, ALICE), 0.5 ether, "half of the first");
        // What is left of the first and all of the second, half an ether each: three and a half days and seven, on average five and a quarter.
        vm.warp(block.timestamp + 5.25 days / 2);
        nearly(pool.claimable(ETHER, ALICE), 1 ether, "half of the rest");
        vm.warp(block.timestamp + 5.25 days / 2);
        nearly(claim(ALICE), 1.5 ether, "all");
    }

    /// Staking around one settlement costs the cooldown, during which the stake earns nothing.
    function test_leavingStakeEarnsNothingAndWaits() public {
        stake(ALICE, 100);
        stake(BOB, 100);
        vm.prank(BOB);
        pool.startUnstake(100);
        reward(1 ether);
        pool.pull(ETHER);
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
        wait();
        equal(pool.claimable(ETHER, address(timelock)), 1 ether, "to the fallback");
        stake(ALICE, 1);
        equal(pool.claimable(ETHER, ALICE), 0, "not to the first to come");
        equal(pool.claimable(ETHER, address(timelock)), 1 ether, "still the fallback's");
    }

    function test_aStreamWithoutStakersRunsOn() public {
        stake(ALICE, 1);
        reward(1 ether);
        pool.pull(ETHER);
        vm.prank(ALICE);
        pool.startUnstake(1);
        vm.warp(block.timestamp + 3.5 days);
        equal(pool.claimable(ETHER, address(timelock)), 0.5 ether, "half of it while nobody staked");
        stake(BOB, 5);
        vm.warp(block.timestamp + 7 days);
        nearly(claim(BOB), 0.5 ether, "half of it since");
        equal(pool.claimable(ETHER, address(timelock)), 0.5 ether, "as it was");
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
        wait();
        vm.prank(ALICE);
        vm.expectRevert(abi.encodeWithSelector(IStakingPool.TransferFailed.selector, address(0)));
        pool.claim(ETHER, address(0));
        vm.prank(PLATFORM);
        vm.expectRevert(abi.encodeWithSelector(IAttributionSettlement.TransferFailed.selector, address(0)));
        settlement.withdraw(ETHER, address(0));
        vm.expectRevert(IStakingPool.NoFallback.selector);
        new StakingPool(open, settlement, address(0), 1);
    }

    function testFuzz_neverMoreThanWasPulled(uint64[4] memory stakes, uint64[4] memory rewards, uint16[4] memory pauses) public {
        uint256 total;
        for (uint256 i = 0; i < 4; ++i) {
            stake(address(uint160(0x500 + i)), uint256(stakes[i]) + 1);
            reward(uint256(rewards[i]) + 1);
            total += uint256(rewards[i]) + 1;
            vm.warp(block.timestamp + pauses[i]);
        }
        wait();
        equal(address(pool).balance, total, "pulled");
        uint256 owed;
        for (uint256 i = 0; i < 4; ++i) {
            owed += pool.claimable(ETHER, address(uint160(0x500 + i)));
        }
        check(owed <= total && total - owed <= 8, "all but rounding");
    }
}
