// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Scalar} from "./Scalar.sol";

/// @title Public inputs of the outer proof
/// @notice Their order, and the two that stand for the whole list of weights.
/// @dev Instead of every weight the circuit gets one value of the polynomial `Σ_j weights[j]·X^j`, at a challenge that is drawn after
/// everything else is fixed, the circuit's own digest of the weights included. Two different lists of `n` weights agree at the challenge
/// with probability at most `(n - 1) / ORDER`.
library PublicInputs {
    uint256 internal constant COUNT = 9;

    uint256 internal constant STATEMENT_DIGEST = 0;
    uint256 internal constant BASE = 1;
    uint256 internal constant ADAPTER = 2;
    uint256 internal constant INDEX = 3;
    uint256 internal constant INDEX_DIGEST = 4;
    uint256 internal constant REQUEST_ID = 5;
    uint256 internal constant TOKEN_DIGEST = 6;
    uint256 internal constant CHALLENGE = 7;
    uint256 internal constant EVALUATION = 8;

    /// @notice Weights are below this, in the circuit as here, so that no two lists of weights are the same modulo the field's order.
    uint256 internal constant WEIGHT_BOUND = 1 << 31;

    /// @notice A weight isn't below `WEIGHT_BOUND`.
    error WeightOutOfRange(uint256 index, uint256 weight);

    /// @notice Fills in challenge and evaluation from the other inputs and the weights.
    /// @param inputs The first seven are read, the last two written.
    /// @param weights One per contributor.
    /// @return total Sum of the weights.
    function bindWeights(uint256[9] memory inputs, uint256[] calldata weights) internal pure returns (uint256 total) {
        uint256 z = challenge(inputs, weights);
        uint256 order = Scalar.ORDER;
        uint256 y = 0;
        uint256 union = 0;
        assembly ("memory-safe") {
            for { let at := add(weights.offset, shl(5, weights.length)) } gt(at, weights.offset) {} {
                at := sub(at, 32)
                let weight := calldataload(at)
                y := addmod(mulmod(y, z, order), weight, order)
                total := add(total, weight)
                union := or(union, weight)
            }
        }
        // The bound is a power of two: some weight reaches it if and only if their union does. Then this names it.
        if (union >= WEIGHT_BOUND) totalOf(weights);
        inputs[CHALLENGE] = z;
        inputs[EVALUATION] = y;
    }

    /// @notice Sum of the weights, each of which must be in range.
    function totalOf(uint256[] calldata weights) internal pure returns (uint256 total) {
        for (uint256 j = 0; j < weights.length; ++j) {
            if (weights[j] >= WEIGHT_BOUND) revert WeightOutOfRange(j, weights[j]);
            total += weights[j];
        }
    }

    /// @notice `keccak256(abi.encode(inputs 0 to 6, weights)) mod ORDER`.
    function challenge(uint256[9] memory inputs, uint256[] calldata weights) internal pure returns (uint256) {
        bytes memory encoded = abi.encode(inputs[0], inputs[1], inputs[2], inputs[3], inputs[4], inputs[5], inputs[6], weights);
        return uint256(keccak256(encoded)) % Scalar.ORDER;
    }
}
