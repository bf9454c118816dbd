// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// @title Scalars of BN254
/// @notice The field that the outer proof's public inputs live in.
library Scalar {
    /// @notice Order of the field.
    uint256 internal constant ORDER = 0x30644e72e131a029b85045b68181585d2833e84879b9709143e1f593f0000001;

    /// @dev Every value below 2^253 is below the order, so clearing three bits makes a scalar of any digest.
    uint256 private constant LOW_253_BITS = (1 << 253) - 1;

    /// @notice A digest with its top three bits cleared.
    function fromDigest(bytes32 digest) internal pure returns (uint256) {
        return uint256(digest) & LOW_253_BITS;
    }

    /// @notice Whether `value` is a scalar in its only accepted form.
    function isCanonical(uint256 value) internal pure returns (bool) {
        return value < ORDER;
    }
}
