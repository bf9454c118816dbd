// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Scalar} from "../../src/libraries/Scalar.sol";

/// @notice Behaves as the generated verifier does: inputs count modulo the field's order, bytes after the proof are ignored, a good proof
/// returns nothing, a bad one burns all gas. A good proof is the list of hashes that `MockProof` makes from the inputs.
contract MockRawVerifier {
    uint256 private immutable WORDS;

    constructor(uint256 words) {
        WORDS = words;
    }

    fallback() external {
        uint256[10] memory inputs;
        for (uint256 i = 0; i < 10; ++i) {
            inputs[i] = _word(i) % Scalar.ORDER;
        }
        bytes32 seed = keccak256(abi.encode(inputs));
        for (uint256 i = 0; i < WORDS; ++i) {
            if (_word(10 + i) != uint256(keccak256(abi.encode(seed, i)))) {
                assembly {
                    invalid()
                }
            }
        }
    }

    function _word(uint256 i) private pure returns (uint256 word) {
        assembly {
            word := calldataload(mul(i, 32))
        }
    }
}

/// @notice Takes every proof, for nothing: what it leaves is the cost of everything else.
contract FreeRawVerifier {
    fallback() external {}
}

/// @notice Says yes only if it gets all the gas it was promised, as one whose cost is exactly the limit.
contract HungryRawVerifier {
    uint256 private immutable NEEDED;

    constructor(uint256 needed) {
        NEEDED = needed;
    }

    fallback() external {
        if (gasleft() >= NEEDED) return;
        assembly {
            invalid()
        }
    }
}

/// @notice Answers with data, as no generated verifier does.
contract TalkativeRawVerifier {
    fallback() external {
        assembly {
            mstore(0, 1)
            return(0, 32)
        }
    }
}

library MockProof {
    /// @notice The proof that `MockRawVerifier` takes for these inputs.
    function make(uint256[10] memory inputs, uint256 words) internal pure returns (bytes memory proof) {
        bytes32 seed = keccak256(abi.encode(inputs));
        proof = new bytes(32 * words);
        for (uint256 i = 0; i < words; ++i) {
            bytes32 word = keccak256(abi.encode(seed, i));
            assembly {
                mstore(add(add(proof, 32), mul(i, 32)), word)
            }
        }
    }
}
