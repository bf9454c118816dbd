// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {INPUTS} from "../libraries/PublicInputs.sol";

/// @title Verifier of attribution proofs of one relation
/// @notice One relation (model shape, quantisation, policy, sizes) has one verifying key and one verifier.
interface IAttributionVerifier {
    /// @notice The caller left less gas than a verification may take; a false answer would say nothing about the proof.
    error InsufficientGas(uint256 available, uint256 required);
    /// @notice There is no code at the raw verifier's address; calls to it would all succeed.
    error NoVerifierCode(address raw);
    /// @notice Proof length or gas limit is zero.
    error EmptyLimits();

    /// @notice Whether `proof` proves the statement with these public inputs.
    /// @dev A wrong length, an input that isn't below the field's order and a failing proof all give `false`. Proof bytes are malleable:
    /// two different byte strings can both verify, so never identify anything by them.
    /// @param publicInputs In the order of the library `PublicInputs`.
    /// @param proof The outer proof's bytes.
    function verify(uint256[INPUTS] calldata publicInputs, bytes calldata proof) external view returns (bool);

    /// @notice Digest of the verifying key.
    function keyDigest() external view returns (bytes32);
}
