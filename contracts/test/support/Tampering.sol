// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IAttributionVerifier} from "../../src/interfaces/IAttributionVerifier.sol";
import {Scalar} from "../../src/libraries/Scalar.sol";
import {Test} from "./Test.sol";

/// @notice Changes a good proof and its public inputs in every place, and requires that each change is refused at a bounded price.
abstract contract Tampering is Test {
    /// @dev What the front itself may spend beyond the generated verifier's limit.
    uint256 internal constant FRONT_GAS = 60_000;
    /// @dev What each attempt is given: most of it must come back.
    uint256 internal constant FORWARDED = 5_000_000;

    /// @return variants How many were tried.
    function requireAllRefused(IAttributionVerifier verifier, uint256 gasLimit, uint256[10] memory inputs, bytes memory proof)
        internal
        view
        returns (uint256 variants)
    {
        uint256 bound = gasLimit + FRONT_GAS;
        check(bound * 5 < FORWARDED, "a failed proof costs less than a fifth of the gas forwarded");
        check(attempt(verifier, inputs, proof, bound), "the proof itself verifies");
        variants =
            _inputs(verifier, inputs, proof, bound) + _words(verifier, inputs, proof, bound) + _lengths(verifier, inputs, proof, bound);
        check(variants >= 50, "at least fifty variants");
    }

    /// @notice Whether the verifier says yes; a revert counts as no. The gas spent is checked.
    function attempt(IAttributionVerifier verifier, uint256[10] memory inputs, bytes memory proof, uint256 bound)
        internal
        view
        returns (bool)
    {
        uint256 before = gasleft();
        try verifier.verify{gas: FORWARDED}(inputs, proof) returns (bool verified) {
            check(before - gasleft() < bound, "gas spent");
            return verified;
        } catch {
            check(before - gasleft() < bound, "gas burnt");
            return false;
        }
    }

    function _refused(
        IAttributionVerifier verifier,
        uint256[10] memory inputs,
        bytes memory proof,
        uint256 bound,
        string memory what,
        uint256 place
    ) private view {
        if (attempt(verifier, inputs, proof, bound)) revert Failed(string.concat(what, " ", vm.toString(place)));
    }

    /// @dev Each value plus one, plus the order (the same value to a verifier that reduces), as large as can be, and swapped with its neighbour.
    function _inputs(IAttributionVerifier verifier, uint256[10] memory inputs, bytes memory proof, uint256 bound)
        private
        view
        returns (uint256 variants)
    {
        for (uint256 i = 0; i < 10; ++i) {
            uint256 honest = inputs[i];
            inputs[i] = addmod(honest, 1, Scalar.ORDER);
            _refused(verifier, inputs, proof, bound, "public input plus one:", i);
            inputs[i] = honest + Scalar.ORDER;
            _refused(verifier, inputs, proof, bound, "public input plus the order:", i);
            inputs[i] = type(uint256).max;
            _refused(verifier, inputs, proof, bound, "largest public input:", i);
            inputs[i] = inputs[(i + 1) % 10];
            _refused(verifier, inputs, proof, bound, "public input of its neighbour:", i);
            inputs[i] = honest;
            variants += 4;
        }
    }

    /// @dev Each word of the proof with one bit flipped, and zeroed.
    function _words(IAttributionVerifier verifier, uint256[10] memory inputs, bytes memory proof, uint256 bound)
        private
        view
        returns (uint256 variants)
    {
        for (uint256 i = 0; i < proof.length / 32; ++i) {
            uint256 honest = word(proof, i);
            setWord(proof, i, honest ^ 1);
            _refused(verifier, inputs, proof, bound, "flipped proof word:", i);
            setWord(proof, i, 0);
            if (honest != 0) _refused(verifier, inputs, proof, bound, "zeroed proof word:", i);
            setWord(proof, i, honest);
            variants += 2;
        }
    }

    function _lengths(IAttributionVerifier verifier, uint256[10] memory inputs, bytes memory proof, uint256 bound)
        private
        view
        returns (uint256)
    {
        _refused(verifier, inputs, bytes.concat(proof, hex"00"), bound, "appended byte:", 0);
        _refused(verifier, inputs, bytes.concat(proof, bytes32(0)), bound, "appended word:", 0);
        _refused(verifier, inputs, bytes.concat(proof, proof), bound, "proof twice:", 0);
        _refused(verifier, inputs, bytes.concat(hex"00", proof), bound, "prepended byte:", 0);
        _refused(verifier, inputs, "", bound, "no proof:", 0);
        bytes memory shorter = bytes.concat(proof);
        assembly {
            mstore(shorter, sub(mload(shorter), 1))
        }
        _refused(verifier, inputs, shorter, bound, "missing byte:", 0);
        return 6;
    }

    function word(bytes memory data, uint256 i) internal pure returns (uint256 value) {
        assembly {
            value := mload(add(add(data, 32), mul(i, 32)))
        }
    }

    function setWord(bytes memory data, uint256 i, uint256 value) internal pure {
        assembly {
            mstore(add(add(data, 32), mul(i, 32)), value)
        }
    }
}
