// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IAttributionSettlement} from "../src/interfaces/IAttributionSettlement.sol";
import {IModelRegistry} from "../src/interfaces/IModelRegistry.sol";
import {FreeRawVerifier} from "./support/MockRawVerifier.sol";
import {System} from "./support/System.sol";

/// @notice What transactions cost, kept in snapshots/. Every call is a transaction of its own, calldata and base cost included. The generated
/// verifier is replaced by one that costs nothing: its own cost comes on top.
/// forge-config: default.isolate = true
contract GasTest is System {
    /// @dev Targets: 600,000 for one settlement with 16 contributors, the first of a chain included, of which 450,000 for verification.
    uint256 private constant BUDGET = 150_000;

    function setUp() public {
        deploy(address(new FreeRawVerifier()), KEY, 32 * PROOF_WORDS, VERIFIER_GAS);
    }

    function proof() private pure returns (bytes memory bytes_) {
        for (uint256 i = 0; i < PROOF_WORDS; ++i) {
            bytes_ = bytes.concat(bytes_, keccak256(abi.encode(i)));
        }
    }

    function settleOne(uint64 modelId, uint256[] memory weights, bytes memory bytes_, string memory name)
        private
        returns (bytes32 id, uint256 gas_)
    {
        id = escrow(modelId, OPEN, 1 ether);
        uint256 digest = uint256(keccak256("statement")) >> 3;
        settlement.settle(id, IAttributionSettlement.Digests(digest, digest, digest), weights, bytes_);
        gas_ = vm.snapshotGasLastCall("settlement", name);
    }

    /// @dev What the transaction pays before it runs: base cost and calldata. Both are also paid by a bare verification.
    function intrinsic(bytes memory call) private pure returns (uint256 gas_) {
        gas_ = 21_000;
        for (uint256 i = 0; i < call.length; ++i) {
            gas_ += call[i] == 0 ? 4 : 16;
        }
    }

    function test_settlement() public {
        uint64 modelId = registerModel(16);
        uint256[] memory weights = exampleWeights(16);
        bytes memory bytes_ = proof();
        (, uint256 first) = settleOne(modelId, weights, bytes_, "settle: 16 contributors, first of all, without raw verifier");
        (bytes32 id, uint256 gas_) = settleOne(modelId, weights, bytes_, "settle: 16 contributors, without raw verifier");
        uint256 digest = uint256(keccak256("statement")) >> 3;
        uint256 before = intrinsic(abi.encodeCall(settlement.settle, (id, IAttributionSettlement.Digests(digest, digest, digest), weights, bytes_)));
        vm.snapshotValue("settlement", "settle: 16 contributors, base cost and calldata of it", before);
        vm.snapshotValue("settlement", "settle: 16 contributors, execution without raw verifier", gas_ - before);
        check(gas_ - before < BUDGET, "everything but verification");
        // Credits of the first settlement go to accounts that are open; the slots of the second are no cheaper.
        check(first < gas_ + 500, "first of all");
        settlement.collect(one(collection(id, weights, 3)));
        vm.snapshotGasLastCall("settlement", "collect: 1 share of 16");
        vm.prank(contributor(3));
        settlement.withdraw(OPEN, contributor(3));
        vm.snapshotGasLastCall("settlement", "withdraw: OPEN");
    }

    function test_settlementOfAThousand() public {
        uint64 modelId = registerModel(1000);
        uint256[] memory weights = exampleWeights(1000);
        (bytes32 id, uint256 gas_) = settleOne(modelId, weights, proof(), "settle: 1000 contributors, without raw verifier");
        check(gas_ < 2 ** 24 - VERIFIER_GAS, "fits a transaction");
        settlement.collect(one(collection(id, weights, 999)));
        vm.snapshotGasLastCall("settlement", "collect: 1 share of 1000");
    }

    function test_requests() public {
        uint64 modelId = registerModel(1);
        IAttributionSettlement.Terms memory t = terms(modelId, ETHER, 1 ether);
        fund(PAYER, 10 ether);
        vm.prank(PAYER);
        bytes32 id = settlement.escrow{value: 1 ether}(t);
        vm.snapshotGasLastCall("settlement", "escrow: ether, first of a payer");
        t.asset = OPEN;
        vm.prank(PAYER);
        settlement.escrow(t);
        vm.snapshotGasLastCall("settlement", "escrow: OPEN");
        vm.warp(block.timestamp + 2 days);
        settlement.refund(id);
        vm.snapshotGasLastCall("settlement", "refund");
        vm.prank(PAYER);
        settlement.withdraw(ETHER, PAYER);
        vm.snapshotGasLastCall("settlement", "withdraw: ether");
    }

    function test_registries() public {
        uint64 datanetId = publishDatanet(16);
        vm.snapshotGasLastCall("registries", "publish: 16 contributors");
        IModelRegistry.Registration memory r =
            IModelRegistry.Registration(keccak256("a") >> 3, keccak256("b") >> 3, keccak256("c") >> 3, KEY, datanetId, 1, PAYEE);
        models.register(r, contributorNames(16));
        vm.snapshotGasLastCall("registries", "register: 16 contributors");
        datanets.contribute(datanetId, keccak256("samples"), "CC-BY-4.0", "somebody else");
        vm.snapshotGasLastCall("registries", "contribute");
    }
}
