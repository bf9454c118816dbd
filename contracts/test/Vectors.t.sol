// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {AttributionSettlement} from "../src/AttributionSettlement.sol";
import {IAttributionSettlement} from "../src/interfaces/IAttributionSettlement.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IModelRegistry} from "../src/interfaces/IModelRegistry.sol";
import {Scalar} from "../src/libraries/Scalar.sol";
import {FreeRawVerifier} from "./support/MockRawVerifier.sol";
import {System} from "./support/System.sol";
import {Tampering} from "./support/Tampering.sol";
import {Vm} from "./support/Vm.sol";

/// @notice Gives every request the id of a recorded proof.
contract RecordedSettlement is AttributionSettlement {
    bytes32 private immutable RECORDED;

    constructor(IERC20 open_, IModelRegistry models_, Split memory split_, address owner_, bytes32 recorded)
        AttributionSettlement(open_, models_, split_, owner_)
    {
        RECORDED = recorded;
    }

    function _requestId(address, uint256, Terms calldata) internal view override returns (bytes32) {
        return RECORDED;
    }
}

/// @notice Measures a call, which must succeed. Calls of a test itself are transactions.
contract Meter {
    function gasOf(address target, bytes calldata data) external view returns (uint256) {
        bytes memory copied = data;
        uint256 before = gasleft();
        (bool succeeded,) = target.staticcall(copied);
        uint256 spent = before - gasleft();
        require(succeeded, "measured call");
        return spent;
    }
}

/// @notice Real proofs, made by the prover: test/vectors/proof-*.json, described in README.md.
/// forge-config: default.isolate = true
contract VectorsTest is System, Tampering {
    uint256 private constant RUNTIME_LIMIT = 24_576;
    /// @dev For the first settlement of a chain like for every other, with up to 16 contributors.
    uint256 private constant SETTLEMENT_TARGET = 600_000;
    uint256 private constant TARGET_CONTRIBUTORS = 16;

    /// @dev Order of the field that weights are proven in.
    uint256 private constant KOALA_BEAR = 2 ** 31 - 2 ** 24 + 1;

    bytes32 private recordedId;

    function deploySettlement(address poolAddress) internal override returns (AttributionSettlement) {
        IAttributionSettlement.Split memory split = IAttributionSettlement.Split(500, 2000, 500, 7000, PLATFORM, poolAddress);
        return new RecordedSettlement(open, models, split, address(timelock), recordedId);
    }

    /// @return found Paths of the recorded proofs, the rest empty.
    function recordings() private returns (string[] memory found) {
        Vm.DirEntry[] memory entries = vm.readDir("test/vectors");
        found = new string[](entries.length);
        uint256 count;
        for (uint256 i = 0; i < entries.length; ++i) {
            if (isRecording(bytes(entries[i].path))) found[count++] = entries[i].path;
        }
        if (count == 0) vm.skip(true, "NO REAL PROOFS CHECKED: test/vectors/proof-*.json is missing");
    }

    function isRecording(bytes memory path) private pure returns (bool) {
        uint256 start = path.length;
        while (start != 0 && path[start - 1] != "/") --start;
        bytes6 head;
        for (uint256 i = 0; i < 6 && start + i < path.length; ++i) {
            head |= bytes6(path[start + i]) >> (8 * i);
        }
        return head == "proof-";
    }

    function test_recordedProofsVerifyAndNoVariantDoes() public {
        string[] memory paths = recordings();
        for (uint256 i = 0; i < paths.length && bytes(paths[i]).length != 0; ++i) {
            string memory json = vm.readFile(paths[i]);
            deployRecorded(json);
            uint256 variants = requireAllRefused(verifier, verifier.gasLimit(), recordedInputs(json), vm.parseJsonBytes(json, ".proof"));
            check(variants >= 50, "variants");
        }
    }

    function test_recordedProofsSettle() public {
        string[] memory paths = recordings();
        for (uint256 i = 0; i < paths.length && bytes(paths[i]).length != 0; ++i) {
            settleRecorded(vm.readFile(paths[i]));
        }
    }

    function settleRecorded(string memory json) private {
        deployRecorded(json);
        uint64 modelId = registerRecorded(json);
        uint256[10] memory expected = recordedInputs(json);
        uint256[] memory weights = vm.parseJsonUintArray(json, ".weights");
        IAttributionSettlement.Terms memory t = terms(modelId, OPEN, 1 ether);
        (t.promptDigest, t.tokenDigest) = (expected[6], expected[7]);
        bytes32 id = escrow(PAYER, t);
        uint256[10] memory found = settlement.publicInputs(id, proven(expected), weights);
        for (uint256 i = 0; i < 10; ++i) {
            equal(found[i], expected[i], string.concat("public input ", vm.toString(i)));
        }
        requireTamperedRevert(id, expected, weights, vm.parseJsonBytes(json, ".proof"));
        settlement.settle(id, proven(expected), weights, vm.parseJsonBytes(json, ".proof"));
        string memory name = vm.parseJsonString(json, ".name");
        uint256 gas_ = vm.snapshotGasLastCall("vectors", string.concat(name, ": settle"));
        if (weights.length <= TARGET_CONTRIBUTORS) check(gas_ < SETTLEMENT_TARGET, "gas of one settlement");
        collectAll(id, weights);
        uint256 verification = new Meter().gasOf(verifier.raw(), abi.encodePacked(expected, vm.parseJsonBytes(json, ".proof")));
        vm.snapshotValue("vectors", string.concat(name, ": generated verifier"), verification);
        gas_ = verification + settleFree(vm.parseJsonBytes(json, ".proof"));
        vm.snapshotValue("vectors", string.concat(name, ": settle, with 16 contributors"), gas_);
        check(gas_ < SETTLEMENT_TARGET, "gas of one settlement with 16 contributors");
    }

    /// What the first settlement of a chain costs with 16 contributors, a proof of these bytes and a generated verifier that costs nothing.
    function settleFree(bytes memory proof) private returns (uint256) {
        deploy(address(new FreeRawVerifier()), KEY, proof.length, VERIFIER_GAS);
        bytes32 id = escrow(registerModel(TARGET_CONTRIBUTORS), OPEN, 1 ether);
        uint256 digest = uint256(keccak256("statement")) >> 3;
        settlement.settle(id, IAttributionSettlement.Digests(digest, digest, digest), exampleWeights(TARGET_CONTRIBUTORS), proof);
        return vm.lastCallGas().gasTotalUsed;
    }

    /// Everything that the caller of `settle` chooses, changed: each attempt reverts, and a fifth of the gas forwarded is the most it burns.
    function requireTamperedRevert(bytes32 id, uint256[10] memory inputs, uint256[] memory weights, bytes memory proof) private {
        for (uint256 i = 0; i < proof.length / 32; ++i) {
            uint256 honest = word(proof, i);
            setWord(proof, i, honest ^ 1);
            requireReverts(abi.encodeCall(settlement.settle, (id, proven(inputs), weights, proof)), "proof word", i);
            setWord(proof, i, honest);
        }
        for (uint256 i = 0; i < weights.length; ++i) {
            weights[i] ^= 1;
            requireReverts(abi.encodeCall(settlement.settle, (id, proven(inputs), weights, proof)), "weight", i);
            weights[i] ^= 1;
            weights[i] += KOALA_BEAR;
            requireReverts(abi.encodeCall(settlement.settle, (id, proven(inputs), weights, proof)), "weight plus p", i);
            weights[i] -= KOALA_BEAR;
        }
        uint256[4] memory changes = [uint256(1), Scalar.ORDER, 1 << 255, 1 << 128];
        for (uint256 i = 0; i < 4; ++i) {
            IAttributionSettlement.Digests memory d = proven(inputs);
            d.statement += changes[i];
            requireReverts(abi.encodeCall(settlement.settle, (id, d, weights, proof)), "statement digest", i);
            d = proven(inputs);
            d.prompt += changes[i];
            requireReverts(abi.encodeCall(settlement.settle, (id, d, weights, proof)), "prompt digest", i);
            d = proven(inputs);
            d.tokens += changes[i];
            requireReverts(abi.encodeCall(settlement.settle, (id, d, weights, proof)), "token digest", i);
        }
        bytes memory longer = bytes.concat(proof, hex"00");
        requireReverts(abi.encodeCall(settlement.settle, (id, proven(inputs), weights, longer)), "appended byte", 0);
    }

    function proven(uint256[10] memory inputs) private pure returns (IAttributionSettlement.Digests memory) {
        return IAttributionSettlement.Digests(inputs[0], inputs[6], inputs[7]);
    }

    function requireReverts(bytes memory call, string memory what, uint256 place) private {
        uint256 before = gasleft();
        (bool settled,) = address(settlement).call{gas: FORWARDED}(call);
        check(!settled, string.concat("settled with another ", what, " ", vm.toString(place)));
        check((before - gasleft()) * 5 < FORWARDED, "gas burnt");
    }

    function deployRecorded(string memory json) private {
        recordedId = bytes32(recordedInputs(json)[5]);
        bytes memory code = vm.parseJsonBytes(vm.readFile(vm.parseJsonString(json, ".raw_verifier_artifact")), ".bytecode");
        address raw;
        assembly {
            raw := create(0, add(code, 32), mload(code))
        }
        check(raw.code.length != 0 && raw.code.length <= RUNTIME_LIMIT, "size of the generated verifier");
        vm.snapshotValue("vectors", string.concat(vm.parseJsonString(json, ".name"), ": verifier bytes"), raw.code.length);
        deploy(
            raw, vm.parseJsonBytes32(json, ".key_digest"), vm.parseJsonBytes(json, ".proof").length, vm.parseJsonUint(json, ".gas_limit")
        );
    }

    function recordedInputs(string memory json) private pure returns (uint256[10] memory inputs) {
        uint256[] memory list = vm.parseJsonUintArray(json, ".public_inputs");
        equal(list.length, 10, "public inputs");
        for (uint256 i = 0; i < 10; ++i) {
            inputs[i] = list[i];
        }
    }

    /// The datanet and model that the recorded index is of, through the registries.
    function registerRecorded(string memory json) private returns (uint64) {
        string[] memory names = vm.parseJsonStringArray(json, ".index.contributors");
        uint64 datanetId = datanets.create("recorded");
        uint64[] memory ids = new uint64[](names.length);
        for (uint256 i = 0; i < names.length; ++i) {
            vm.prank(contributor(i));
            ids[i] = datanets.contribute(datanetId, bytes32(i + 1), "CC0", names[i]);
            datanets.approve(ids[i]);
        }
        uint64 version = uint64(vm.parseJsonUint(json, ".index.datanet_version"));
        for (uint256 i = 0; i < version; ++i) {
            datanets.publish(datanetId, vm.parseJsonBytes32(json, ".index.datanet_root"), "CC0", ids);
        }
        IModelRegistry.Registration memory r = IModelRegistry.Registration(
            vm.parseJsonBytes32(json, ".index.base"),
            vm.parseJsonBytes32(json, ".index.adapter"),
            vm.parseJsonBytes32(json, ".index.commitment"),
            vm.parseJsonBytes32(json, ".key_digest"),
            datanetId,
            version,
            PAYEE
        );
        return models.register(r, names);
    }
}
