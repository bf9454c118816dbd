// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {AttributionVerifier} from "../src/AttributionVerifier.sol";
import {IAttributionSettlement} from "../src/interfaces/IAttributionSettlement.sol";
import {IAttributionVerifier} from "../src/interfaces/IAttributionVerifier.sol";
import {IModelRegistry} from "../src/interfaces/IModelRegistry.sol";
import {PublicInputs} from "../src/libraries/PublicInputs.sol";
import {Scalar} from "../src/libraries/Scalar.sol";
import {FreeRawVerifier, MockProof} from "./support/MockRawVerifier.sol";
import {System} from "./support/System.sol";
import {Vm} from "./support/Vm.sol";

/// @notice A system whose verifier takes every proof: what is left is what the settlement checks itself.
contract AcceptingSystem is System {
    uint64 private modelId;

    constructor() {
        deploy(address(new FreeRawVerifier()), KEY, 32, VERIFIER_GAS);
        modelId = registerModel(4);
    }

    /// @notice These weights settle, and don't with `more` added to the weight at `index`.
    function settlesOnly(uint256[] memory weights, uint256 index, uint256 more) external {
        bytes32 id = escrow(modelId, OPEN, 100);
        weights[index] += more;
        vm.expectRevert(abi.encodeWithSelector(PublicInputs.WeightOutOfRange.selector, index, weights[index]));
        settlement.settle(id, digests(1, 2), weights, new bytes(32));
        weights[index] -= more;
        settlement.settle(id, digests(1, 2), weights, new bytes(32));
    }
}

contract AttributionSettlementTest is System {
    /// @dev Order of the field that weights are proven in.
    uint256 private constant KOALA_BEAR = 2 ** 31 - 2 ** 24 + 1;
    address private constant PROVIDER = address(0x960f);

    uint64 private modelId;

    function setUp() public {
        deployWithMock();
        modelId = registerModel(4);
    }

    function four(uint256 a, uint256 b, uint256 c, uint256 d) private pure returns (uint256[] memory w) {
        w = new uint256[](4);
        (w[0], w[1], w[2], w[3]) = (a, b, c, d);
    }

    function expectStatus(bytes32 id, IAttributionSettlement.Status wanted, IAttributionSettlement.Status found) private {
        vm.expectRevert(abi.encodeWithSelector(IAttributionSettlement.UnexpectedStatus.selector, id, wanted, found));
    }

    // ------------------------------------------------------------------ escrow

    function test_aRequestPinsWhatItIsSettledUnder() public {
        IAttributionSettlement.Terms memory t = terms(modelId, ETHER, 1 ether);
        (t.promptDigest, t.tokenDigest, t.settler) = (PROMPT, 0x70, PROVIDER);
        bytes32 expected = settlement.nextRequestId(PAYER, t);
        bytes32 id = escrow(PAYER, t);
        equal(id, expected, "the id is known beforehand");
        equal(uint256(id) >> 253, 0, "top three bits");
        IAttributionSettlement.Request memory r = settlement.request(id);
        equal(r.payer, PAYER, "payer");
        equal(r.deadline, t.deadline, "deadline");
        equal(r.splitId, 1, "split");
        equal(uint256(r.status), uint256(IAttributionSettlement.Status.Escrowed), "status");
        equal(r.amount, 1 ether, "amount");
        equal(r.modelId, modelId, "model");
        equal(r.verifier, address(verifier), "verifier");
        equal(r.binding, bytes32(PROMPT), "prompt digest");
        check(r.bindsTokens && r.namesSettler, "answer and settler");
        equal(address(settlement).balance, 1 ether, "escrowed");
        equal(settlement.nonces(PAYER), 1, "nonce");
    }

    function test_sameTermsTwiceAreTwoRequests() public {
        bytes32 first = escrow(modelId, OPEN, 5);
        check(escrow(modelId, OPEN, 5) != first, "ids differ");
        equal(open.balanceOf(address(settlement)), 10, "escrowed");
    }

    function test_badTermsAreRefused() public {
        fund(PAYER, 10 ether);
        vm.startPrank(PAYER);
        IAttributionSettlement.Terms memory t = terms(modelId, ETHER, 1 ether);
        vm.expectRevert(abi.encodeWithSelector(IAttributionSettlement.EtherAmount.selector, 1 ether, 0));
        settlement.escrow(t);
        vm.expectRevert(abi.encodeWithSelector(IAttributionSettlement.EtherAmount.selector, 1 ether, 2 ether));
        settlement.escrow{value: 2 ether}(t);
        t.asset = OPEN;
        vm.expectRevert(abi.encodeWithSelector(IAttributionSettlement.EtherAmount.selector, 0, 1 ether));
        settlement.escrow{value: 1 ether}(t);
        t.amount = 0;
        vm.expectRevert(IAttributionSettlement.NoFee.selector);
        settlement.escrow(t);
        t = terms(modelId, OPEN, 1);
        t.splitId = 2;
        vm.expectRevert(abi.encodeWithSelector(IAttributionSettlement.StaleSplit.selector, 1, 2));
        settlement.escrow(t);
        t = terms(modelId, OPEN, 1);
        t.tokenDigest = Scalar.ORDER;
        vm.expectRevert(abi.encodeWithSelector(IAttributionSettlement.NotAScalar.selector, Scalar.ORDER));
        settlement.escrow(t);
        t = terms(modelId, OPEN, 1);
        t.promptDigest = Scalar.ORDER + PROMPT;
        vm.expectRevert(abi.encodeWithSelector(IAttributionSettlement.NotAScalar.selector, Scalar.ORDER + PROMPT));
        settlement.escrow(t);
        t = terms(modelId, OPEN, 1);
        t.deadline = uint40(block.timestamp + 10 minutes - 1);
        vm.expectPartialRevert(IAttributionSettlement.DeadlineOutOfRange.selector);
        settlement.escrow(t);
        t.deadline = uint40(block.timestamp + 90 days + 1);
        vm.expectPartialRevert(IAttributionSettlement.DeadlineOutOfRange.selector);
        settlement.escrow(t);
        t = terms(modelId, OPEN, 1);
        t.modelId = 77;
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.UnknownModel.selector, 77));
        settlement.escrow(t);
        t = terms(modelId, OPEN, 11 ether);
        vm.expectPartialRevert(IERC20Errors.ERC20InsufficientBalance.selector);
        settlement.escrow(t);
        vm.stopPrank();
    }

    function test_etherByItselfIsRefused() public {
        vm.deal(address(this), 1 ether);
        (bool taken,) = address(settlement).call{value: 1}("");
        check(!taken, "no way in but escrow");
    }

    // ------------------------------------------------------------------ settlement

    function test_feeIsSplitAndPulled() public {
        uint256[] memory weights = four(1, 0, 2, 5);
        bytes32 id = escrow(modelId, ETHER, 1 ether);
        settle(id, weights);
        equal(settlement.claimable(ETHER, PLATFORM), 0.05 ether, "platform");
        equal(settlement.claimable(ETHER, PAYEE), 0.2 ether, "model owner");
        equal(settlement.claimable(ETHER, address(pool)), 0.05 ether, "stakers");
        equal(settlement.claimable(ETHER, contributor(0)), 0, "nothing before it is collected");
        collectAll(id, weights);
        equal(settlement.claimable(ETHER, contributor(0)), 0.7 ether / 8, "1 of 8");
        equal(settlement.claimable(ETHER, contributor(1)), 0, "0 of 8");
        equal(settlement.claimable(ETHER, contributor(2)), 0.7 ether / 4, "2 of 8");
        equal(settlement.claimable(ETHER, contributor(3)), 0.7 ether * 5 / 8, "5 of 8");
        vm.prank(contributor(3));
        equal(settlement.withdraw(ETHER, address(0xbeef)), 0.7 ether * 5 / 8, "withdrawn");
        equal(address(0xbeef).balance, 0.7 ether * 5 / 8, "received");
        vm.prank(contributor(3));
        vm.expectRevert(abi.encodeWithSelector(IAttributionSettlement.NothingToWithdraw.selector, ETHER, contributor(3)));
        settlement.withdraw(ETHER, address(0xbeef));
    }

    function test_feeInOpen() public {
        bytes32 id = escrow(modelId, OPEN, 10_000);
        settle(id, four(1, 1, 1, 1));
        vm.prank(PLATFORM);
        settlement.withdraw(OPEN, PLATFORM);
        equal(open.balanceOf(PLATFORM), 500, "platform");
        equal(settlement.claimable(ETHER, PLATFORM), 0, "assets are apart");
    }

    /// 7,001: 350.05, 1,400.2, 350.05 and 4,900.7 of which thirds are 1,633.33.
    function test_dustGoesToThePlatform() public {
        uint256[] memory weights = four(1, 1, 1, 0);
        bytes32 id = escrow(modelId, OPEN, 7001);
        (IAttributionSettlement.Distribution memory d, address[] memory accounts, uint256[] memory amounts) =
            settlement.preview(id, weights);
        equal(d.platform, 350, "platform");
        equal(d.modelOwner, 1400, "model owner");
        equal(d.stakers, 350, "stakers");
        equal(d.contributors, 3 * 1633, "contributors");
        equal(d.dust, 2, "dust");
        equal(amounts[0], 1633, "a third");
        equal(accounts[3], contributor(3), "account");
        settle(id, weights);
        equal(settlement.claimable(OPEN, PLATFORM), 352, "share and dust");
    }

    function test_withoutWeightsTheContributorsShareGoesBack() public {
        uint256[] memory weights = four(0, 0, 0, 0);
        bytes32 id = escrow(modelId, OPEN, 10_000);
        settle(id, weights);
        equal(settlement.claimable(OPEN, PAYER), 7000, "returned");
        equal(settlement.claimable(OPEN, PLATFORM), 500, "platform");
        IAttributionSettlement.Collection memory c = collection(id, weights, 0);
        vm.expectRevert(abi.encodeWithSelector(IAttributionSettlement.InvalidPath.selector, id, 0));
        settlement.collect(one(c));
    }

    function test_theEventHoldsEverythingALightClientNeeds() public {
        uint256[] memory weights = four(3, 1, 4, 1);
        bytes32 id = escrow(modelId, OPEN, 100);
        bytes memory proof = proofOf(id, 0x70, weights);
        uint256[10] memory expected = settlement.publicInputs(id, digests(0xd1, 0x70), weights);
        vm.recordLogs();
        settlement.settle(id, digests(0xd1, 0x70), weights, proof);
        Vm.Log memory log = vm.getRecordedLogs()[0];
        equal(log.topics[0], IAttributionSettlement.Settled.selector, "event");
        equal(log.topics[1], id, "request");
        equal(uint256(log.topics[2]), modelId, "model");
        equal(uint256(log.topics[3]), uint160(address(verifier)), "verifier");
        (uint256[10] memory inputs, uint256[] memory found, bytes memory bytes_) = abi.decode(log.data, (uint256[10], uint256[], bytes));
        equal(keccak256(abi.encode(inputs)), keccak256(abi.encode(expected)), "inputs");
        equal(keccak256(abi.encode(found)), keccak256(abi.encode(weights)), "weights");
        equal(keccak256(bytes_), keccak256(proof), "proof");
    }

    function test_publicInputsAreTheSpecifiedOnes() public {
        uint256[] memory weights = four(3, 1, 4, 1);
        bytes32 id = escrow(modelId, OPEN, 100);
        uint256[10] memory p = settlement.publicInputs(id, digests(0xd1, 0x70), weights);
        IModelRegistry.Model memory m = models.model(modelId);
        equal(p[0], 0xd1, "statement");
        equal(p[1], uint256(m.base), "base");
        equal(p[2], uint256(m.adapter), "adapter");
        equal(p[3], uint256(m.index), "index");
        equal(p[4], m.indexDigest, "index statement");
        equal(p[5], uint256(id), "request");
        equal(p[6], PROMPT, "prompt");
        equal(p[7], 0x70, "tokens");
        bytes memory named = abi.encodePacked(p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7]);
        uint256 z = uint256(keccak256(abi.encodePacked(named, uint256(0x120), uint256(4), weights))) % Scalar.ORDER;
        equal(p[8], z, "challenge");
        uint256 z2 = mulmod(z, z, Scalar.ORDER);
        uint256 y = addmod(3, z, Scalar.ORDER);
        y = addmod(y, mulmod(4, z2, Scalar.ORDER), Scalar.ORDER);
        equal(p[9], addmod(y, mulmod(z2, z, Scalar.ORDER), Scalar.ORDER), "evaluation");
    }

    function test_settledOnlyOnce() public {
        uint256[] memory weights = four(1, 2, 3, 4);
        bytes32 id = escrow(modelId, OPEN, 100);
        bytes memory proof = proofOf(id, 0x70, weights);
        settlement.settle(id, digests(0xd1, 0x70), weights, proof);
        expectStatus(id, IAttributionSettlement.Status.Escrowed, IAttributionSettlement.Status.Settled);
        settlement.settle(id, digests(0xd1, 0x70), weights, proof);
        vm.warp(block.timestamp + 2 days);
        expectStatus(id, IAttributionSettlement.Status.Escrowed, IAttributionSettlement.Status.Settled);
        settlement.refund(id);
    }

    function test_aProofServesItsOwnRequestOnly() public {
        uint256[] memory weights = four(1, 2, 3, 4);
        bytes32 first = escrow(modelId, OPEN, 100);
        bytes32 second = escrow(modelId, OPEN, 100);
        bytes memory proof = proofOf(first, 0x70, weights);
        vm.expectRevert(abi.encodeWithSelector(IAttributionSettlement.InvalidProof.selector, second));
        settlement.settle(second, digests(0xd1, 0x70), weights, proof);
    }

    function test_idsDifferBetweenContracts() public {
        IAttributionSettlement.Terms memory t = terms(modelId, OPEN, 1);
        IAttributionSettlement other = deploySettlement(address(pool));
        check(settlement.nextRequestId(PAYER, t) != other.nextRequestId(PAYER, t), "ids name their contract");
    }

    function test_everyArgumentIsBoundByTheProof() public {
        uint256[] memory weights = four(1, 2, 3, 4);
        bytes32 id = escrow(modelId, OPEN, 100);
        bytes memory proof = proofOf(id, 0x70, weights);
        bytes memory refused = abi.encodeWithSelector(IAttributionSettlement.InvalidProof.selector, id);
        vm.expectRevert(refused);
        settlement.settle(id, digests(0xd2, 0x70), weights, proof);
        vm.expectRevert(refused);
        settlement.settle(id, digests(0xd1, 0x71), weights, proof);
        vm.expectRevert(refused);
        settlement.settle(id, IAttributionSettlement.Digests(0xd1, PROMPT + 1, 0x70), weights, proof);
        vm.expectRevert(refused);
        settlement.settle(id, IAttributionSettlement.Digests(0xd1, PROMPT + Scalar.ORDER, 0x70), weights, proof);
        vm.expectRevert(refused);
        settlement.settle(id, digests(0xd1 + Scalar.ORDER, 0x70), weights, proof);
        vm.expectRevert(refused);
        settlement.settle(id, digests(0xd1, 0x70 + Scalar.ORDER), weights, proof);
        vm.expectRevert(refused);
        settlement.settle(id, digests(0xd1, 0x70), four(2, 1, 3, 4), proof);
        vm.expectRevert(refused);
        settlement.settle(id, digests(0xd1, 0x70), weights, bytes.concat(proof, hex"00"));
        settlement.settle(id, digests(0xd1, 0x70), weights, proof);
    }

    function test_weightsAreCountedAndBounded() public {
        bytes32 id = escrow(modelId, OPEN, 100);
        vm.expectRevert(abi.encodeWithSelector(IAttributionSettlement.WeightCount.selector, 4, 5));
        settlement.settle(id, digests(0, 0), new uint256[](5), "");
        vm.expectRevert(abi.encodeWithSelector(IAttributionSettlement.WeightCount.selector, 4, 3));
        settlement.settle(id, digests(0, 0), new uint256[](3), "");
        uint256 over = PublicInputs.MOST_WEIGHT + 1;
        vm.expectRevert(abi.encodeWithSelector(PublicInputs.WeightOutOfRange.selector, 1, over));
        settlement.settle(id, digests(0, 0), four(0, over, 0, 0), "");
        vm.expectRevert(abi.encodeWithSelector(PublicInputs.TotalOutOfRange.selector, over));
        settlement.settle(id, digests(0, 0), four(1, over - 2, 0, 1), "");
        vm.expectRevert(abi.encodeWithSelector(PublicInputs.WeightOutOfRange.selector, 2, type(uint256).max));
        settlement.settle(id, digests(0, 0), four(1, 0, type(uint256).max, 1), "");
        vm.expectRevert(abi.encodeWithSelector(PublicInputs.WeightOutOfRange.selector, 0, Scalar.ORDER));
        settlement.settle(id, digests(0, 0), four(Scalar.ORDER, 0, 0, 0), "");
        vm.expectRevert(abi.encodeWithSelector(PublicInputs.WeightOutOfRange.selector, 3, over));
        settlement.preview(id, four(0, 0, 0, over));
    }

    /// A weight plus p is another integer of the same class: a proof can't tell them apart, and it would take the pot.
    function test_aWeightPlusPIsRefusedWhateverTheProofSays() public {
        AcceptingSystem accepting = new AcceptingSystem();
        for (uint256 i = 0; i < 4; ++i) {
            accepting.settlesOnly(four(0, 2, 3, 1 << 29), i, KOALA_BEAR);
        }
    }

    function test_largestWeightsAndFee() public {
        uint256 most = PublicInputs.MOST_WEIGHT / 4;
        uint256[] memory weights = four(most, most, most, most);
        bytes32 id = escrow(modelId, ETHER, type(uint128).max);
        settle(id, weights);
        collectAll(id, weights);
        equal(settlement.request(id).totalWeight, 4 * most, "total");
        check(settlement.claimable(ETHER, contributor(0)) > type(uint128).max / 6, "share");
        weights = four(0, PublicInputs.MOST_WEIGHT, 0, 0);
        id = escrow(modelId, OPEN, 100);
        settle(id, weights);
        equal(settlement.request(id).totalWeight, PublicInputs.MOST_WEIGHT, "all of it to one");
    }

    function test_anExpectedTokenDigestMustMatch() public {
        IAttributionSettlement.Terms memory t = terms(modelId, OPEN, 100);
        t.tokenDigest = 0x99;
        bytes32 id = escrow(PAYER, t);
        uint256[] memory weights = four(1, 2, 3, 4);
        vm.expectRevert(abi.encodeWithSelector(IAttributionSettlement.TokenDigestMismatch.selector, 0x99, 0x70));
        settlement.settle(id, digests(0xd1, 0x70), weights, "");
        bytes memory proof = proofOf(id, 0x99, weights);
        settlement.settle(id, digests(0xd1, 0x99), weights, proof);
    }

    /// Without it, a contributor picks a prompt that matches their samples and settles first.
    function test_aPromptThatWasntPaidForIsRefused() public {
        IAttributionSettlement.Terms memory t = terms(modelId, OPEN, 100);
        t.promptDigest = 0x1234;
        bytes32 id = escrow(PAYER, t);
        uint256[] memory weights = four(0, 0, 0, 4);
        bytes memory proof = proofOf(id, 0x70, weights);
        vm.expectRevert(abi.encodeWithSelector(IAttributionSettlement.PromptDigestMismatch.selector, 0x1234, PROMPT));
        settlement.settle(id, digests(0xd1, 0x70), weights, proof);
        IAttributionSettlement.Digests memory d = IAttributionSettlement.Digests(0xd1, 0x1234, 0x70);
        vm.expectRevert(abi.encodeWithSelector(IAttributionSettlement.InvalidProof.selector, id));
        settlement.settle(id, d, weights, proof);
        proof = MockProof.make(settlement.publicInputs(id, d, weights), PROOF_WORDS);
        settlement.settle(id, d, weights, proof);
    }

    function test_anyExchangeIsAcceptedOnlyWhereThePayerLeftItOpen() public {
        bytes32 id = escrow(modelId, OPEN, 100);
        equal(settlement.request(id).binding, settlement.ANY_PROMPT(), "open");
        uint256[] memory weights = four(1, 0, 0, 0);
        IAttributionSettlement.Digests memory d = IAttributionSettlement.Digests(0xd1, 0x777, 0x888);
        settlement.settle(id, d, weights, MockProof.make(settlement.publicInputs(id, d, weights), PROOF_WORDS));
    }

    function test_aNamedSettlerIsTheOnlyOne() public {
        IAttributionSettlement.Terms memory t = terms(modelId, OPEN, 100);
        t.settler = PROVIDER;
        bytes32 id = escrow(PAYER, t);
        uint256[] memory weights = four(1, 2, 3, 4);
        bytes memory proof = proofOf(id, 0x70, weights);
        vm.prank(STRANGER);
        vm.expectRevert(abi.encodeWithSelector(IAttributionSettlement.NotSettler.selector, id, PROVIDER, STRANGER));
        settlement.settle(id, digests(0xd1, 0x70), weights, proof);
        vm.prank(PROVIDER);
        settlement.settle(id, digests(0xd1, 0x70), weights, proof);
    }

    /// Whoever copies a settlement out of the mempool pays the gas and changes nothing else.
    function test_frontRunningASettlementPaysTheSameAccounts() public {
        uint256[] memory weights = four(1, 2, 3, 4);
        bytes32 id = escrow(modelId, OPEN, 10_000);
        bytes memory proof = proofOf(id, 0x70, weights);
        vm.prank(STRANGER);
        settlement.settle(id, digests(0xd1, 0x70), weights, proof);
        equal(settlement.claimable(OPEN, STRANGER), 0, "nothing for the sender");
        equal(settlement.claimable(OPEN, PAYEE), 2000, "model owner");
        vm.startPrank(STRANGER);
        collectAll(id, weights);
        vm.stopPrank();
        equal(settlement.claimable(OPEN, contributor(3)), 2800, "contributor");
    }

    function test_tooLittleGasChangesNothing() public {
        uint256[] memory weights = four(1, 2, 3, 4);
        bytes32 id = escrow(modelId, OPEN, 100);
        bytes memory proof = proofOf(id, 0x70, weights);
        vm.expectPartialRevert(IAttributionVerifier.InsufficientGas.selector);
        settlement.settle{gas: VERIFIER_GAS}(id, digests(0xd1, 0x70), weights, proof);
        settlement.settle(id, digests(0xd1, 0x70), weights, proof);
    }

    // ------------------------------------------------------------------ collection

    function test_aShareIsCollectedOnceAndOnlyWithItsWeight() public {
        uint256[] memory weights = four(1, 2, 3, 4);
        bytes32 id = escrow(modelId, OPEN, 10_000);
        IAttributionSettlement.Collection memory c = collection(id, weights, 2);
        expectStatus(id, IAttributionSettlement.Status.Settled, IAttributionSettlement.Status.Escrowed);
        settlement.collect(one(c));
        settle(id, weights);
        check(!settlement.collected(id, 2), "not yet");
        settlement.collect(one(c));
        check(settlement.collected(id, 2), "collected");
        equal(settlement.claimable(OPEN, contributor(2)), 2100, "share");
        vm.expectRevert(abi.encodeWithSelector(IAttributionSettlement.AlreadyCollected.selector, id, 2));
        settlement.collect(one(c));
        c = collection(id, weights, 0);
        c.weights[0] = 4;
        vm.expectRevert(abi.encodeWithSelector(IAttributionSettlement.InvalidPath.selector, id, 0));
        settlement.collect(one(c));
        c = collection(id, weights, 3);
        // The same leaf for a contributor of the next group, and for one past its end.
        for (uint256 index = 4; index < 16; ++index) {
            c.index = index;
            vm.expectRevert(abi.encodeWithSelector(IAttributionSettlement.InvalidPath.selector, id, index));
            settlement.collect(one(c));
        }
        c.index = 0;
        settlement.collect(one(c));
        equal(settlement.claimable(OPEN, contributor(0)), 700, "weights that share a leaf each pay their own contributor");
    }

    function test_pathsOfOneRequestServeNoOther() public {
        bytes32 first = escrow(modelId, OPEN, 100);
        bytes32 second = escrow(modelId, OPEN, 100);
        settle(first, four(9, 0, 0, 1));
        settle(second, four(0, 9, 0, 1));
        IAttributionSettlement.Collection memory c = collection(first, four(9, 0, 0, 1), 0);
        c.requestId = second;
        vm.expectRevert(abi.encodeWithSelector(IAttributionSettlement.InvalidPath.selector, second, 0));
        settlement.collect(one(c));
    }

    // ------------------------------------------------------------------ refunds

    function test_unprovenRequestsAreRefundedAfterTheDeadline() public {
        bytes32 id = escrow(modelId, ETHER, 1 ether);
        uint256[] memory weights = four(1, 2, 3, 4);
        bytes memory proof = proofOf(id, 0x70, weights);
        uint256 deadline = settlement.request(id).deadline;
        vm.warp(deadline);
        vm.expectRevert(abi.encodeWithSelector(IAttributionSettlement.DeadlineNotPassed.selector, id, deadline));
        settlement.refund(id);
        vm.warp(deadline + 1);
        vm.expectRevert(abi.encodeWithSelector(IAttributionSettlement.DeadlinePassed.selector, id, deadline));
        settlement.settle(id, digests(0xd1, 0x70), weights, proof);
        vm.prank(STRANGER);
        settlement.refund(id);
        equal(settlement.claimable(ETHER, PAYER), 1 ether, "credited to the payer, whoever asks");
        expectStatus(id, IAttributionSettlement.Status.Escrowed, IAttributionSettlement.Status.Refunded);
        settlement.refund(id);
        expectStatus(id, IAttributionSettlement.Status.Escrowed, IAttributionSettlement.Status.Refunded);
        settlement.settle(id, digests(0xd1, 0x70), weights, proof);
    }

    function test_settledInTheLastSecond() public {
        bytes32 id = escrow(modelId, OPEN, 100);
        vm.warp(settlement.request(id).deadline);
        settle(id, four(1, 0, 0, 0));
    }

    function test_unknownRequests() public {
        bytes32 id = bytes32(uint256(1));
        expectStatus(id, IAttributionSettlement.Status.Escrowed, IAttributionSettlement.Status.None);
        settlement.refund(id);
        expectStatus(id, IAttributionSettlement.Status.Escrowed, IAttributionSettlement.Status.None);
        settlement.settle(id, digests(0, 0), new uint256[](4), "");
    }

    // ------------------------------------------------------------------ changes between escrow and settlement

    function test_governanceCannotChangeARequestAfterEscrow() public {
        uint256[] memory weights = four(1, 2, 3, 4);
        bytes32 id = escrow(modelId, OPEN, 10_000);
        bytes memory proof = proofOf(id, 0x70, weights);
        AttributionVerifier yes = new AttributionVerifier(address(new FreeRawVerifier()), KEY, 32, 100);
        vm.startPrank(address(timelock));
        models.setVerifier(KEY, yes);
        settlement.setSplit(IAttributionSettlement.Split(10_000, 0, 0, 0, STRANGER, address(0)));
        vm.stopPrank();
        vm.prank(MODEL_OWNER);
        models.retire(modelId);
        uint64[] memory none;
        vm.expectRevert();
        datanets.publish(1, bytes32(uint256(1)), "CC0", none);

        vm.expectRevert(abi.encodeWithSelector(IAttributionSettlement.InvalidProof.selector, id));
        settlement.settle(id, digests(0xd1, 0x70), weights, new bytes(32));
        settlement.settle(id, digests(0xd1, 0x70), weights, proof);
        equal(settlement.claimable(OPEN, STRANGER), 0, "the new split isn't this request's");
        equal(settlement.claimable(OPEN, PAYEE), 2000, "the old one is");
    }

    function test_newRequestsComeUnderNewTermsOnly() public {
        IAttributionSettlement.Terms memory t = terms(modelId, OPEN, 10_000);
        vm.prank(address(timelock));
        uint32 next = settlement.setSplit(IAttributionSettlement.Split(1000, 0, 0, 9000, STRANGER, address(0)));
        equal(next, 2, "number");
        equal(settlement.split(1).platform, PLATFORM, "the old one stays");
        fund(PAYER, 10_000);
        vm.prank(PAYER);
        vm.expectRevert(abi.encodeWithSelector(IAttributionSettlement.StaleSplit.selector, 2, 1));
        settlement.escrow(t);
        bytes32 id = escrow(modelId, OPEN, 10_000);
        settle(id, four(1, 0, 0, 0));
        equal(settlement.claimable(OPEN, STRANGER), 1000, "new split");
        equal(settlement.claimable(OPEN, address(pool)), 0, "no stakers' share");
        vm.prank(MODEL_OWNER);
        models.retire(modelId);
        t = terms(modelId, OPEN, 1);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.Retired.selector, modelId));
        settlement.escrow(t);
    }

    function test_splitsAreChecked() public {
        vm.startPrank(address(timelock));
        vm.expectRevert(IAttributionSettlement.InvalidSplit.selector);
        settlement.setSplit(IAttributionSettlement.Split(1, 2, 3, 4, PLATFORM, PLATFORM));
        vm.expectRevert(IAttributionSettlement.InvalidSplit.selector);
        settlement.setSplit(IAttributionSettlement.Split(0, 0, 0, 10_000, address(0), PLATFORM));
        vm.expectRevert(IAttributionSettlement.InvalidSplit.selector);
        settlement.setSplit(IAttributionSettlement.Split(0, 0, 1, 9999, PLATFORM, address(0)));
        vm.expectRevert(IAttributionSettlement.InvalidSplit.selector);
        settlement.setSplit(IAttributionSettlement.Split(65_535, 10_001, 0, 0, PLATFORM, PLATFORM));
        vm.stopPrank();
        vm.expectRevert(abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, address(this)));
        settlement.setSplit(IAttributionSettlement.Split(0, 0, 0, 10_000, PLATFORM, PLATFORM));
    }

    /// Between the payer's look at the registry and the escrow's block, governance approves another verifier.
    function test_noOtherVerifierIsSlippedUnderAnEscrow() public {
        IAttributionSettlement.Terms memory t = terms(modelId, OPEN, 100);
        AttributionVerifier yes = new AttributionVerifier(address(new FreeRawVerifier()), KEY, 32, 100);
        vm.prank(address(timelock));
        models.setVerifier(KEY, yes);
        fund(PAYER, 100);
        vm.startPrank(PAYER);
        vm.expectRevert(
            abi.encodeWithSelector(IAttributionSettlement.VerifierDiffers.selector, address(verifier), KEY, address(yes), KEY)
        );
        settlement.escrow(t);
        bytes32 other = keccak256("another key");
        (t.verifier, t.verifierKey) = (address(yes), other);
        vm.expectRevert(abi.encodeWithSelector(IAttributionSettlement.VerifierDiffers.selector, address(yes), other, address(yes), KEY));
        settlement.escrow(t);
        t.verifierKey = KEY;
        settlement.escrow(t);
        vm.stopPrank();
    }

    // ------------------------------------------------------------------ pause

    function test_pauseStopsEscrowAndSettlementButNoRefundAndNoPayment() public {
        uint256[] memory weights = four(1, 2, 3, 4);
        bytes32 settled = escrow(modelId, ETHER, 1 ether);
        settle(settled, weights);
        bytes32 pending = escrow(modelId, ETHER, 1 ether);
        bytes memory proof = proofOf(pending, 0x70, weights);
        vm.prank(address(timelock));
        settlement.pause(30 days);
        uint256 until = block.timestamp + 30 days;
        vm.expectRevert(abi.encodeWithSelector(IAttributionSettlement.IsPaused.selector, until));
        settlement.settle(pending, digests(0xd1, 0x70), weights, proof);
        IAttributionSettlement.Terms memory t = terms(modelId, OPEN, 1);
        vm.expectRevert(abi.encodeWithSelector(IAttributionSettlement.IsPaused.selector, until));
        settlement.escrow(t);
        collectAll(settled, weights);
        vm.prank(contributor(3));
        settlement.withdraw(ETHER, contributor(3));
    }

    function test_aPauseMakesNobodysTimeRunOut() public {
        bytes32 overdue = escrow(modelId, ETHER, 1 ether);
        uint256 start = block.timestamp;
        vm.warp(start + 20 hours);
        bytes32 pending = escrow(modelId, ETHER, 1 ether);
        vm.warp(start + 1 days + 1);
        pauseFor(30 days);
        vm.warp(start + 20 days);
        settlement.refund(overdue);
        vm.prank(PAYER);
        settlement.withdraw(ETHER, PAYER);
        equal(PAYER.balance, 1 ether, "a deadline that has passed stays passed");
        uint256 moved = start + 20 hours + 1 days + 20 days - 1 days - 1;
        vm.expectRevert(abi.encodeWithSelector(IAttributionSettlement.DeadlineNotPassed.selector, pending, moved));
        settlement.refund(pending);
        vm.warp(start + 31 days + 1 + 20 hours - 1);
        settle(pending, four(1, 2, 3, 4));
    }

    function pauseFor(uint256 duration) private {
        vm.prank(address(timelock));
        settlement.pause(duration);
    }

    /// Several pauses, one of them shortened and one prolonged, before and after an escrow; the last second counts in both directions.
    function test_deadlinesMoveByThePausesSinceTheEscrowAndNoMore() public {
        pauseFor(3 days);
        vm.warp(block.timestamp + 3 days + 3 days);
        uint256 start = block.timestamp;
        IAttributionSettlement.Terms memory t = terms(modelId, OPEN, 100);
        t.deadline = uint40(start + 10 days);
        (bytes32 first, bytes32 second) = (escrow(PAYER, t), escrow(PAYER, t));
        equal(settlement.request(first).deadline, start + 10 days, "an earlier pause moves nothing");
        pauseFor(2 days);
        vm.warp(start + 1 days);
        vm.prank(address(timelock));
        settlement.unpause();
        equal(settlement.request(first).deadline, start + 11 days, "one day, not two");
        vm.warp(start + 5 days);
        equal(settlement.request(first).deadline, start + 11 days, "time goes on");
        pauseFor(1 days);
        vm.warp(start + 5 days + 12 hours);
        pauseFor(1 days);
        vm.warp(start + 9 days);
        equal(settlement.request(first).deadline, start + 12 days + 12 hours, "the second pause, prolonged to one and a half days");
        vm.warp(start + 12 days + 12 hours);
        vm.expectPartialRevert(IAttributionSettlement.DeadlineNotPassed.selector);
        settlement.refund(first);
        settle(first, four(1, 0, 0, 0));
        vm.warp(start + 12 days + 12 hours + 1);
        bytes memory proof = proofOf(second, 0x70, four(1, 0, 0, 0));
        uint256 deadline = start + 12 days + 12 hours;
        vm.expectRevert(abi.encodeWithSelector(IAttributionSettlement.DeadlinePassed.selector, second, deadline));
        settlement.settle(second, digests(0xd1, 0x70), four(1, 0, 0, 0), proof);
        settlement.refund(second);
    }

    /// However often governance pauses, a fee comes back within twice its window and the longest pause.
    function test_pausesCannotLockAFeeForEver() public {
        uint256 start = block.timestamp;
        IAttributionSettlement.Terms memory t = terms(modelId, OPEN, 100);
        t.deadline = uint40(start + 40 days);
        bytes32 id = escrow(PAYER, t);
        uint256 pauses;
        while (block.timestamp <= settlement.request(id).deadline) {
            vm.prank(address(timelock));
            try settlement.pause(30 days) {
                ++pauses;
            } catch {}
            vm.warp(block.timestamp + 1 days);
        }
        equal(pauses, 2, "a pause, a rest as long, and so on");
        check(block.timestamp <= start + 2 * 40 days + 30 days + 1, "bounded");
        settlement.refund(id);
    }

    function test_pausesEnd() public {
        bytes32 id = escrow(modelId, OPEN, 100);
        vm.startPrank(address(timelock));
        settlement.pause(1 hours);
        settlement.unpause();
        vm.stopPrank();
        settle(id, four(1, 2, 3, 4));
        vm.prank(address(timelock));
        settlement.pause(1 hours);
        vm.warp(block.timestamp + 1 hours);
        escrow(modelId, OPEN, 100);
        uint256 ended = settlement.pausedUntil();
        vm.warp(block.timestamp + 1 hours);
        vm.prank(address(timelock));
        settlement.unpause();
        equal(settlement.pausedUntil(), ended, "what has ended isn't ended again");
    }

    function test_theGuardianPausesForAWhileOnly() public {
        address guardian = address(0x9a4d);
        vm.prank(address(timelock));
        settlement.setGuardian(guardian);
        uint256 start = block.timestamp;
        vm.startPrank(guardian);
        bytes memory refused = abi.encodeWithSelector(IAttributionSettlement.PauseRefused.selector, guardian);
        vm.expectRevert(refused);
        settlement.pause(7 days + 1);
        settlement.pause(7 days);
        vm.expectRevert(refused);
        settlement.pause(7 days);
        vm.warp(start + 14 days - 1);
        vm.expectRevert(refused);
        settlement.pause(1);
        vm.warp(start + 14 days);
        settlement.pause(1);
        vm.expectRevert(abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, guardian));
        settlement.unpause();
        vm.expectRevert(abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, guardian));
        settlement.setGuardian(STRANGER);
        vm.stopPrank();
        vm.warp(start + 14 days + 2);
        bytes memory tooLong = abi.encodeWithSelector(IAttributionSettlement.PauseRefused.selector, address(timelock));
        vm.startPrank(address(timelock));
        vm.expectRevert(tooLong);
        settlement.pause(30 days + 1);
        settlement.pause(10 days);
        vm.warp(start + 20 days);
        vm.expectRevert(tooLong);
        settlement.pause(24 days + 3);
        settlement.pause(24 days);
        vm.stopPrank();
        vm.expectRevert(abi.encodeWithSelector(IAttributionSettlement.PauseRefused.selector, address(this)));
        settlement.pause(1);
    }

    // ------------------------------------------------------------------ fuzz

    function testFuzz_partsAddUpToTheFee(uint128 amount, uint256 seed, uint16 a, uint16 b, uint16 c) public {
        amount = uint128(within(amount, 1, type(uint128).max));
        a = uint16(within(a, 0, 10_000));
        b = uint16(within(b, 0, 10_000 - a));
        c = uint16(within(c, 0, 10_000 - a - b));
        vm.prank(address(timelock));
        settlement.setSplit(IAttributionSettlement.Split(a, b, c, 10_000 - a - b - c, PLATFORM, address(pool)));
        uint256[] memory weights = randomWeights(seed);
        bytes32 id = escrow(modelId, ETHER, amount);
        settle(id, weights);
        uint256 paid = settlement.claimable(ETHER, PLATFORM) + settlement.claimable(ETHER, PAYEE)
            + settlement.claimable(ETHER, address(pool)) + settlement.claimable(ETHER, PAYER);
        (IAttributionSettlement.Distribution memory d,, uint256[] memory amounts) = settlement.preview(id, weights);
        equal(paid + d.contributors, amount, "parts");
        check(d.dust < 4 + 4, "less dust than roundings");
        if (settlement.request(id).totalWeight == 0) return;
        collectAll(id, weights);
        for (uint256 i = 0; i < 4; ++i) {
            equal(settlement.claimable(ETHER, contributor(i)), amounts[i], "as previewed");
            paid += amounts[i];
        }
        equal(paid, amount, "all of it, to the wei");
    }

    function randomWeights(uint256 seed) private pure returns (uint256[] memory w) {
        w = four(seed, seed >> 64, seed >> 128, seed >> 192);
        for (uint256 i = 0; i < 4; ++i) {
            w[i] = (w[i] & 3) == 0 ? 0 : (w[i] >> 2) & (PublicInputs.MOST_WEIGHT / 4 - 1);
        }
    }

    function testFuzz_pathsLeadToTheRootWhateverTheNumber(uint256 count, uint256 index) public {
        count = within(count, 1, 40);
        index = within(index, 0, count - 1);
        uint256[] memory weights = exampleWeights(count);
        weights[index] = 77;
        bytes32 id = escrow(registerModel(count), OPEN, 10_000_000);
        settle(id, weights);
        settlement.collect(one(collection(id, weights, index)));
        uint256 total = settlement.request(id).totalWeight;
        equal(settlement.claimable(OPEN, contributor(index)), 7_000_000 * 77 / total, "share");
    }
}
