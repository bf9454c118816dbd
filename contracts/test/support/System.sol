// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {AttributionSettlement} from "../../src/AttributionSettlement.sol";
import {AttributionVerifier} from "../../src/AttributionVerifier.sol";
import {DatanetRegistry} from "../../src/DatanetRegistry.sol";
import {ModelRegistry} from "../../src/ModelRegistry.sol";
import {OpenToken} from "../../src/OpenToken.sol";
import {PoaGovernor} from "../../src/PoaGovernor.sol";
import {StakingPool} from "../../src/StakingPool.sol";
import {Timelock} from "../../src/Timelock.sol";
import {IAttributionSettlement} from "../../src/interfaces/IAttributionSettlement.sol";
import {IAttributionVerifier} from "../../src/interfaces/IAttributionVerifier.sol";
import {IModelRegistry} from "../../src/interfaces/IModelRegistry.sol";
import {MockProof, MockRawVerifier} from "./MockRawVerifier.sol";
import {Test} from "./Test.sol";

/// @notice Everything deployed as `poa deploy` does, with one datanet and one model.
abstract contract System is Test {
    IAttributionSettlement.Asset internal constant ETHER = IAttributionSettlement.Asset.Ether;
    IAttributionSettlement.Asset internal constant OPEN = IAttributionSettlement.Asset.Open;

    uint256 internal constant PROOF_WORDS = 96;
    uint256 internal constant VERIFIER_GAS = 450_000;
    uint256 internal constant SUPPLY = 1_000_000_000 ether;
    uint256 internal constant DELAY = 2 days;
    uint256 internal constant COOLDOWN = 7 days;
    bytes32 internal constant KEY = keccak256("verifying key");

    address internal constant HOLDER = address(0x401de5);
    address internal constant PAYER = address(0x9a1e5);
    address internal constant MODEL_OWNER = address(0x0de1);
    address internal constant PAYEE = address(0x9a1ee);
    address internal constant PLATFORM = address(0x91a7f0);
    address internal constant STRANGER = address(0x574a17);

    OpenToken internal open;
    Timelock internal timelock;
    PoaGovernor internal governor;
    DatanetRegistry internal datanets;
    AttributionVerifier internal verifier;
    ModelRegistry internal models;
    AttributionSettlement internal settlement;
    StakingPool internal pool;

    /// @dev Addresses that a constructor needs before they exist come from the deployer's nonce, so that no role is ever held by the deployer.
    function deploy(address raw, bytes32 keyDigest, uint256 proofLength, uint256 gasLimit) internal {
        open = new OpenToken(HOLDER, SUPPLY);
        uint64 nonce = vm.getNonce(address(this));
        timelock = new Timelock(DELAY, vm.computeCreateAddress(address(this), nonce + 1));
        PoaGovernor.Settings memory s = PoaGovernor.Settings(1 days, 7 days, SUPPLY / 1000, 4);
        governor = new PoaGovernor(open, timelock, s);
        datanets = new DatanetRegistry();
        verifier = new AttributionVerifier(raw, keyDigest, proofLength, gasLimit);
        IAttributionVerifier[] memory initial = new IAttributionVerifier[](1);
        initial[0] = verifier;
        models = new ModelRegistry(datanets, address(timelock), initial);
        nonce = vm.getNonce(address(this));
        address poolAddress = vm.computeCreateAddress(address(this), nonce + 1);
        settlement = deploySettlement(poolAddress);
        pool = new StakingPool(open, settlement, address(timelock), COOLDOWN);
        check(address(pool) == poolAddress, "the pool is where the split sends the stakers' share");
    }

    function deploySettlement(address poolAddress) internal virtual returns (AttributionSettlement) {
        IAttributionSettlement.Split memory split = IAttributionSettlement.Split(500, 2000, 500, 7000, PLATFORM, poolAddress);
        return new AttributionSettlement(open, models, split, address(timelock));
    }

    function deployWithMock() internal {
        deploy(address(new MockRawVerifier(PROOF_WORDS)), KEY, 32 * PROOF_WORDS, VERIFIER_GAS);
    }

    // ------------------------------------------------------------------ datanets and models

    function contributor(uint256 i) internal pure returns (address) {
        return address(uint160(0xc0000 + i));
    }

    function contributorNames(uint256 count) internal pure returns (string[] memory list) {
        list = new string[](count);
        for (uint256 i = 0; i < count; ++i) {
            list[i] = string.concat("contributor-", vm.toString(i));
        }
    }

    function publishDatanet(uint256 count) internal returns (uint64 datanetId) {
        datanetId = datanets.create("recipes");
        string[] memory list = contributorNames(count);
        uint64[] memory ids = new uint64[](count);
        for (uint256 i = 0; i < count; ++i) {
            vm.prank(contributor(i));
            ids[i] = datanets.contribute(datanetId, keccak256(abi.encode("samples", i)), "CC-BY-4.0", list[i]);
            datanets.approve(ids[i]);
        }
        datanets.publish(datanetId, bytes32(uint256(0xda7a)), "CC-BY-4.0", ids);
    }

    function registerModel(uint256 count) internal returns (uint64 modelId) {
        uint64 datanetId = publishDatanet(count);
        IModelRegistry.Registration memory r = IModelRegistry.Registration(
            bytes32(uint256(0xba5e)), bytes32(uint256(0xada9)), bytes32(uint256(0x14de)), KEY, datanetId, 1, PAYEE
        );
        vm.prank(MODEL_OWNER);
        return models.register(r, contributorNames(count));
    }

    // ------------------------------------------------------------------ requests

    function terms(uint64 modelId, IAttributionSettlement.Asset asset, uint256 amount)
        internal
        view
        returns (IAttributionSettlement.Terms memory)
    {
        return IAttributionSettlement.Terms({
            modelId: modelId,
            splitId: settlement.currentSplit(),
            asset: asset,
            amount: uint128(amount),
            deadline: uint40(block.timestamp + 1 days),
            promptDigest: 0,
            tokenDigest: 0,
            settler: address(0),
            verifier: address(verifier),
            verifierKey: verifier.keyDigest()
        });
    }

    /// @notice The prompt digest that is proven where a test doesn't say otherwise.
    uint256 internal constant PROMPT = 0x99;

    function digests(uint256 statement, uint256 tokens) internal pure returns (IAttributionSettlement.Digests memory) {
        return IAttributionSettlement.Digests(statement, PROMPT, tokens);
    }

    function fund(address account, uint256 amount) internal {
        vm.deal(account, amount);
        if (amount <= SUPPLY / 1000) {
            vm.prank(HOLDER);
            open.transfer(account, amount);
        }
        vm.prank(account);
        open.approve(address(settlement), type(uint256).max);
    }

    function escrow(address payer, IAttributionSettlement.Terms memory t) internal returns (bytes32) {
        fund(payer, t.amount);
        vm.prank(payer);
        return settlement.escrow{value: t.asset == ETHER ? t.amount : 0}(t);
    }

    function escrow(uint64 modelId, IAttributionSettlement.Asset asset, uint256 amount) internal returns (bytes32) {
        return escrow(PAYER, terms(modelId, asset, amount));
    }

    function proofOf(bytes32 requestId, uint256 tokenDigest, uint256[] memory weights) internal view returns (bytes memory) {
        return MockProof.make(settlement.publicInputs(requestId, digests(0xd1, tokenDigest), weights), PROOF_WORDS);
    }

    function settle(bytes32 requestId, uint256[] memory weights) internal {
        bytes memory proof = proofOf(requestId, 0x70, weights);
        settlement.settle(requestId, digests(0xd1, 0x70), weights, proof);
    }

    function collectAll(bytes32 requestId, uint256[] memory weights) internal {
        IAttributionSettlement.Collection[] memory list = new IAttributionSettlement.Collection[](weights.length);
        for (uint256 i = 0; i < weights.length; ++i) {
            list[i] = collection(requestId, weights, i);
        }
        settlement.collect(list);
    }

    function collection(bytes32 requestId, uint256[] memory weights, uint256 i)
        internal
        view
        returns (IAttributionSettlement.Collection memory)
    {
        (uint256[] memory group, bytes32[] memory path) = settlement.weightPath(requestId, weights, i);
        return IAttributionSettlement.Collection(requestId, i, group, path);
    }

    function one(IAttributionSettlement.Collection memory c) internal pure returns (IAttributionSettlement.Collection[] memory list) {
        list = new IAttributionSettlement.Collection[](1);
        list[0] = c;
    }

    function exampleWeights(uint256 count) internal pure returns (uint256[] memory weights) {
        weights = new uint256[](count);
        for (uint256 i = 0; i < count; ++i) {
            weights[i] = i % 3 == 1 ? 0 : uint256(keccak256(abi.encode("weight", i))) % ((1 << 30) / count);
        }
    }
}
