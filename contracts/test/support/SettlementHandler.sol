// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IAttributionSettlement} from "../../src/interfaces/IAttributionSettlement.sol";
import {System} from "./System.sol";

/// @notice Does random things to the contracts and keeps its own books.
contract SettlementHandler is System {
    uint256 private constant CONTRIBUTORS = 3;
    uint256 private constant MOST_REQUESTS = 24;

    uint64 public modelId;
    bytes32[] public requests;
    address[] public accounts;
    mapping(bytes32 requestId => uint256[]) private _weights;
    mapping(bytes32 requestId => uint256) public payments;
    mapping(IAttributionSettlement.Asset asset => uint256) public paidIn;
    mapping(IAttributionSettlement.Asset asset => uint256) public paidOut;
    /// @dev Seconds that have passed in which settling was possible.
    uint256 private running;
    mapping(bytes32 requestId => uint256) private _lastRunning;
    /// @notice Settlements and refunds at the wrong time, and refusals at the right one.
    uint256 public untimely;

    constructor() {
        deployWithMock();
        modelId = registerModel(CONTRIBUTORS);
        for (uint256 i = 0; i < CONTRIBUTORS; ++i) {
            accounts.push(contributor(i));
        }
        accounts.push(PLATFORM);
        accounts.push(PAYEE);
        accounts.push(PAYER);
        accounts.push(STRANGER);
        accounts.push(address(pool));
    }

    // ------------------------------------------------------------------ actions

    function doEscrow(bool inEther, uint256 amount, bool byStranger) public {
        if (requests.length == MOST_REQUESTS) return;
        IAttributionSettlement.Asset asset = inEther ? ETHER : OPEN;
        amount = within(amount, 1, 1e20);
        bytes32 id = escrow(byStranger ? STRANGER : PAYER, terms(modelId, asset, amount));
        requests.push(id);
        _lastRunning[id] = running + 1 days;
        paidIn[asset] += amount;
    }

    function doSettle(uint256 which, uint256 seed) public {
        bytes32 id = pick(which);
        uint256[] memory weights = new uint256[](CONTRIBUTORS);
        uint256 spread = uint256(keccak256(abi.encode(seed)));
        for (uint256 i = 0; i < CONTRIBUTORS && seed % 8 != 0; ++i) {
            weights[i] = (spread >> (8 + 64 * i)) & ((1 << (spread >> (248 - 8 * i) & 31)) - 1) & (2 ** 28 - 1);
        }
        bytes memory proof = proofOf(id, 0x70, weights);
        bool possible = isEscrowed(id) && running <= _lastRunning[id] && block.timestamp >= settlement.pausedUntil();
        try settlement.settle(id, digests(0xd1, 0x70), weights, proof) {
            if (!possible) ++untimely;
            ++payments[id];
            _weights[id] = weights;
        } catch {
            if (possible) ++untimely;
        }
    }

    function doRefund(uint256 which) public {
        bytes32 id = pick(which);
        bool possible = isEscrowed(id) && running > _lastRunning[id];
        try settlement.refund(id) {
            if (!possible) ++untimely;
            ++payments[id];
        } catch {
            if (possible) ++untimely;
        }
    }

    function doCollect(uint256 which, uint256 index) public {
        bytes32 id = pick(which);
        settlement.collect(one(collection(id, _weights[id], index % CONTRIBUTORS)));
    }

    function doWithdraw(uint256 who, bool inEther) public {
        address account = accounts[who % accounts.length];
        IAttributionSettlement.Asset asset = inEther ? ETHER : OPEN;
        if (account == address(pool)) {
            uint256 amount = settlement.claimable(asset, account);
            pool.pull(asset);
            paidOut[asset] += amount;
        } else {
            vm.prank(account);
            paidOut[asset] += settlement.withdraw(asset, account);
        }
    }

    function doStake(uint256 amount, bool byStranger) public {
        amount = within(amount, 1, 1e24);
        address account = byStranger ? STRANGER : PAYER;
        vm.prank(HOLDER);
        open.transfer(account, amount);
        countPull();
        vm.startPrank(account);
        open.approve(address(pool), amount);
        pool.stake(amount);
        vm.stopPrank();
    }

    function doUnstake(uint256 amount, bool byStranger) public {
        address account = byStranger ? STRANGER : PAYER;
        uint256 staked = pool.stakeOf(account);
        if (staked == 0) return;
        countPull();
        vm.prank(account);
        pool.startUnstake(within(amount, 1, staked));
    }

    function doClaim(uint256 who, bool inEther) public {
        IAttributionSettlement.Asset asset = inEther ? ETHER : OPEN;
        address account = accounts[who % accounts.length];
        if (pool.claimable(asset, account) == 0) return;
        paidOut[asset] += settlement.claimable(asset, address(pool));
        vm.prank(account);
        pool.claim(asset, account);
    }

    function doWait(uint256 time) public {
        time = within(time, 1, 12 hours);
        uint256 until = settlement.pausedUntil();
        uint256 paused = until > block.timestamp ? until - block.timestamp : 0;
        running += time > paused ? time - paused : 0;
        vm.warp(block.timestamp + time);
    }

    function doSetSplit(uint16 a, uint16 b, uint16 c) public {
        a = uint16(within(a, 0, 4000));
        b = uint16(within(b, 0, 3000));
        c = uint16(within(c, 0, 3000));
        vm.prank(address(timelock));
        settlement.setSplit(IAttributionSettlement.Split(a, b, c, 10_000 - a - b - c, PLATFORM, address(pool)));
    }

    function doPause(uint256 time) public {
        vm.prank(address(timelock));
        settlement.pause(within(time, 0, 6 hours));
    }

    function doUnpause() public {
        vm.prank(address(timelock));
        settlement.unpause();
    }

    // ------------------------------------------------------------------ books

    /// @notice Credits of everyone.
    function credited(IAttributionSettlement.Asset asset) public view returns (uint256 sum) {
        for (uint256 i = 0; i < accounts.length; ++i) {
            sum += settlement.claimable(asset, accounts[i]);
        }
    }

    /// @notice Fees that are escrowed, and contributors' shares that nobody has collected yet.
    function pending(IAttributionSettlement.Asset asset) public view returns (uint256 sum) {
        for (uint256 i = 0; i < requests.length; ++i) {
            IAttributionSettlement.Request memory r = settlement.request(requests[i]);
            if (r.asset != asset) continue;
            if (r.status == IAttributionSettlement.Status.Escrowed) sum += r.amount;
            if (r.status == IAttributionSettlement.Status.Settled) sum += uncollected(requests[i]);
        }
    }

    function uncollected(bytes32 id) public view returns (uint256 sum) {
        (,, uint256[] memory amounts) = settlement.preview(id, _weights[id]);
        for (uint256 i = 0; i < CONTRIBUTORS; ++i) {
            if (!settlement.collected(id, i)) sum += amounts[i];
        }
    }

    /// @notice What the pool owes in an asset: rewards, and in OPEN the stakes.
    function poolOwes(IAttributionSettlement.Asset asset) public view returns (uint256 sum) {
        for (uint256 i = 0; i < accounts.length; ++i) {
            sum += pool.claimable(asset, accounts[i]);
        }
        sum += pool.claimable(asset, address(timelock));
        if (asset == OPEN) {
            (uint256 a,) = pool.leaving(PAYER);
            (uint256 b,) = pool.leaving(STRANGER);
            sum += pool.totalStaked() + a + b;
        }
    }

    function settlementHolds(IAttributionSettlement.Asset asset) public view returns (uint256) {
        return holds(address(settlement), asset);
    }

    function poolHolds(IAttributionSettlement.Asset asset) public view returns (uint256) {
        return holds(address(pool), asset);
    }

    function requestCount() public view returns (uint256) {
        return requests.length;
    }

    function holds(address account, IAttributionSettlement.Asset asset) private view returns (uint256) {
        return asset == ETHER ? account.balance : open.balanceOf(account);
    }

    function countPull() private {
        paidOut[ETHER] += settlement.claimable(ETHER, address(pool));
        paidOut[OPEN] += settlement.claimable(OPEN, address(pool));
    }

    function isEscrowed(bytes32 id) private view returns (bool) {
        return settlement.request(id).status == IAttributionSettlement.Status.Escrowed;
    }

    function pick(uint256 which) private view returns (bytes32) {
        return requests[which % requests.length];
    }
}
