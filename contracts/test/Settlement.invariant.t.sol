// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IAttributionSettlement} from "../src/interfaces/IAttributionSettlement.sol";
import {SettlementHandler} from "./support/SettlementHandler.sol";
import {Test} from "./support/Test.sol";

contract SettlementInvariantTest is Test {
    IAttributionSettlement.Asset private constant ETHER = IAttributionSettlement.Asset.Ether;
    IAttributionSettlement.Asset private constant OPEN = IAttributionSettlement.Asset.Open;

    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    SettlementHandler private handler;

    function setUp() public {
        handler = new SettlementHandler();
    }

    function targetContracts() public view returns (address[] memory list) {
        list = new address[](1);
        list[0] = address(handler);
    }

    function targetSelectors() public view returns (FuzzSelector[] memory list) {
        bytes4[] memory selectors = new bytes4[](18);
        selectors[0] = SettlementHandler.doEscrow.selector;
        selectors[1] = SettlementHandler.doEscrow.selector;
        selectors[2] = SettlementHandler.doSettle.selector;
        selectors[3] = SettlementHandler.doSettle.selector;
        selectors[4] = SettlementHandler.doRefund.selector;
        selectors[5] = SettlementHandler.doCollect.selector;
        selectors[6] = SettlementHandler.doCollect.selector;
        selectors[7] = SettlementHandler.doWithdraw.selector;
        selectors[8] = SettlementHandler.doStake.selector;
        selectors[9] = SettlementHandler.doUnstake.selector;
        selectors[10] = SettlementHandler.doClaim.selector;
        selectors[11] = SettlementHandler.doWait.selector;
        selectors[12] = SettlementHandler.doSetSplit.selector;
        selectors[13] = SettlementHandler.doPause.selector;
        selectors[14] = SettlementHandler.doUnpause.selector;
        selectors[15] = SettlementHandler.doUnpause.selector;
        selectors[16] = SettlementHandler.doWait.selector;
        selectors[17] = SettlementHandler.doWait.selector;
        list = new FuzzSelector[](1);
        list[0] = FuzzSelector(address(handler), selectors);
    }

    /// Escrowed in = paid out + credited + refundable or collectable; and the contract holds what it hasn't paid out.
    function invariant_everyWeiIsAccountedFor() public view {
        booksBalance(ETHER);
        booksBalance(OPEN);
    }

    function booksBalance(IAttributionSettlement.Asset asset) private view {
        uint256 owed = handler.credited(asset) + handler.pending(asset);
        equal(handler.paidOut(asset) + owed, handler.paidIn(asset), "paid in = paid out + owed");
        equal(handler.settlementHolds(asset), owed, "held = owed");
        check(handler.poolHolds(asset) >= handler.poolOwes(asset), "the pool can pay");
    }

    function invariant_aRequestPaysAtMostOnce() public view {
        for (uint256 i = 0; i < handler.requestCount(); ++i) {
            check(handler.payments(handler.requests(i)) <= 1, "one payment");
        }
    }

    /// Every request can be settled for its window's time without pauses, to the second, and refunded from then on.
    function invariant_pausesMoveDeadlinesByTheirLength() public view {
        equal(handler.untimely(), 0, "settled, refunded or refused at the wrong time");
    }

    /// The actions do what the campaign counts on: without this the invariants might hold for want of anything happening.
    function test_theHandlersActionsWork() public {
        handler.doStake(100, true);
        handler.doEscrow(true, 1 ether, false);
        handler.doEscrow(false, 1 ether, true);
        handler.doEscrow(false, 5, true);
        handler.doSettle(0, type(uint256).max);
        handler.doSettle(1, 8);
        handler.doCollect(0, 1);
        handler.doWithdraw(1, true);
        handler.doWithdraw(7, true);
        handler.doUnstake(50, true);
        handler.doWait(12 hours);
        handler.doPause(6 hours);
        handler.doWait(12 hours);
        handler.doRefund(2);
        equal(handler.payments(handler.requests(2)), 0, "six hours too early");
        handler.doWait(6 hours);
        handler.doWait(1);
        handler.doRefund(2);
        check(handler.paidOut(ETHER) > 0.05 ether, "paid out");
        check(handler.pending(ETHER) > 0, "uncollected");
        equal(handler.pending(OPEN), 0, "settled without weights and refunded");
        equal(handler.payments(handler.requests(2)), 1, "refunded");
        invariant_everyWeiIsAccountedFor();
        handler.doClaim(6, true);
        handler.doRefund(0);
        equal(handler.payments(handler.requests(0)), 1, "settled before");
        invariant_everyWeiIsAccountedFor();
        invariant_pausesMoveDeadlinesByTheirLength();
    }
}
