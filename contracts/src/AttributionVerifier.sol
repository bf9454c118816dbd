// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IAttributionVerifier} from "./interfaces/IAttributionVerifier.sol";
import {INPUTS} from "./libraries/PublicInputs.sol";
import {Scalar} from "./libraries/Scalar.sol";

/// @title Typed front of a generated verifier
/// @notice The generated contract takes public inputs modulo the field's order, accepts bytes after the proof, and burns all gas it is given
/// when a proof fails. This one lets only canonical inputs and the exact length through, and caps the gas.
contract AttributionVerifier is IAttributionVerifier {
    /// @notice The generated verifier: calldata is the inputs, 32 bytes each, then the proof; it reverts unless the proof verifies.
    address public immutable raw;
    /// @inheritdoc IAttributionVerifier
    bytes32 public immutable keyDigest;
    /// @notice The only accepted length of a proof, in bytes.
    uint256 public immutable proofLength;
    /// @notice Gas that the generated verifier gets.
    uint256 public immutable gasLimit;

    constructor(address raw_, bytes32 keyDigest_, uint256 proofLength_, uint256 gasLimit_) {
        if (raw_.code.length == 0) revert NoVerifierCode(raw_);
        if (proofLength_ == 0 || gasLimit_ == 0) revert EmptyLimits();
        raw = raw_;
        keyDigest = keyDigest_;
        proofLength = proofLength_;
        gasLimit = gasLimit_;
    }

    /// @inheritdoc IAttributionVerifier
    function verify(uint256[INPUTS] calldata publicInputs, bytes calldata proof) external view returns (bool) {
        if (proof.length != proofLength) return false;
        for (uint256 i = 0; i < publicInputs.length; ++i) {
            if (!Scalar.isCanonical(publicInputs[i])) return false;
        }
        bytes memory input = abi.encodePacked(publicInputs, proof);
        // A call gets at most 63/64 of what is left. Without this, too little gas would look like a bad proof.
        uint256 available = gasleft() - gasleft() / 64;
        uint256 required = gasLimit + 3_000;
        if (available < required) revert InsufficientGas(available, required);
        return _call(raw, gasLimit, input);
    }

    /// @dev Return data is never copied. The generated verifier returns nothing when the proof verifies.
    function _call(address target, uint256 gasCap, bytes memory input) private view returns (bool verified) {
        assembly ("memory-safe") {
            verified := staticcall(gasCap, target, add(input, 32), mload(input), 0, 0)
            verified := and(verified, iszero(returndatasize()))
        }
    }
}
