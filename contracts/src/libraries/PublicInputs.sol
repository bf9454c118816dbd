// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Scalar} from "./Scalar.sol";

/// @dev How many public inputs there are.
uint256 constant INPUTS = 10;

/// @title Public inputs of the outer proof
/// @notice Their order, and the two that stand for the whole list of weights.
/// @dev Instead of every weight the circuit gets one value of the polynomial `Σ_j weights[j]·X^j`, at a challenge that is drawn after
/// everything else is fixed, the circuit's own digest of the weights included. Two different lists of `n` weights agree at the challenge
/// with probability at most `(n - 1) / ORDER`.
library PublicInputs {
    uint256 internal constant STATEMENT_DIGEST = 0;
    uint256 internal constant BASE = 1;
    uint256 internal constant ADAPTER = 2;
    uint256 internal constant INDEX = 3;
    uint256 internal constant INDEX_DIGEST = 4;
    uint256 internal constant REQUEST_ID = 5;
    uint256 internal constant PROMPT_DIGEST = 6;
    uint256 internal constant TOKEN_DIGEST = 7;
    uint256 internal constant CHALLENGE = 8;
    uint256 internal constant EVALUATION = 9;

    /// @notice No weight, and no sum of a list of them, is above this.
    /// @dev A proven weight is a sum of relevances modulo `p = 2^31 - 2^24 + 1`; the relation bounds all of a request's relevances together by
    /// 2^30 (docs/protocol.md, section 10), which is below `p`. So of the integers of one class only the least is a weight: `w + p` is none.
    uint256 internal constant MOST_WEIGHT = 1 << 30;

    /// @dev Below this, sums of lists that fit a transaction don't overflow.
    uint256 private constant SUMMABLE = 1 << 128;

    /// @notice A weight is above `MOST_WEIGHT`.
    error WeightOutOfRange(uint256 index, uint256 weight);
    /// @notice The weights' sum is above `MOST_WEIGHT`.
    error TotalOutOfRange(uint256 total);

    /// @notice Fills in challenge and evaluation from the other inputs and the weights.
    /// @param inputs The first eight are read, the last two written.
    /// @param weights One per contributor.
    /// @return total Sum of the weights.
    function bindWeights(uint256[INPUTS] memory inputs, uint256[] calldata weights) internal pure returns (uint256 total) {
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
        // Weights aren't negative: if their sum is in range, and is one, each is. Otherwise this names the first that isn't.
        if (union >= SUMMABLE || total > MOST_WEIGHT) totalOf(weights);
        inputs[CHALLENGE] = z;
        inputs[EVALUATION] = y;
    }

    /// @notice Sum of the weights; each must be in range, and the sum.
    function totalOf(uint256[] calldata weights) internal pure returns (uint256 total) {
        for (uint256 j = 0; j < weights.length; ++j) {
            if (weights[j] > MOST_WEIGHT) revert WeightOutOfRange(j, weights[j]);
            total += weights[j];
        }
        if (total > MOST_WEIGHT) revert TotalOutOfRange(total);
    }

    /// @notice `keccak256(abi.encode(inputs 0 to 7, weights)) mod ORDER`.
    function challenge(uint256[INPUTS] memory inputs, uint256[] calldata weights) internal pure returns (uint256) {
        uint256[CHALLENGE] memory named;
        assembly ("memory-safe") {
            mcopy(named, inputs, 256)
        }
        // `abi.encode`: eight words, where the list begins, its length, its words.
        uint256 start = 32 * (CHALLENGE + 1);
        return uint256(keccak256(abi.encodePacked(named, start, weights.length, weights))) % Scalar.ORDER;
    }
}
