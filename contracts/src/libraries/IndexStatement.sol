// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// @title Statement of an attribution index
/// @notice The digest of an index and where it comes from, the same bytes as `IndexStatement::digest` of the Rust crate `circuits`.
/// @dev Every field in turn; byte strings have their length before them, numbers are eight big-endian bytes.
library IndexStatement {
    /// @notice What the index was made of.
    /// @param index Commitment to its tensors.
    /// @param base Commitment of the base model.
    /// @param adapter Commitment of the adapter.
    /// @param datanetRoot Root of the datanet's samples.
    /// @param datanetVersion Version of the datanet.
    struct Provenance {
        bytes32 index;
        bytes32 base;
        bytes32 adapter;
        bytes32 datanetRoot;
        uint64 datanetVersion;
    }

    /// @notice keccak256 of the canonical encoding.
    /// @param provenance What the index was made of.
    /// @param names Contributors' names, in the order of their weights.
    function digest(Provenance memory provenance, string[] calldata names) internal pure returns (bytes32 result) {
        bytes memory head = _head(provenance, names.length);
        uint256 length = head.length;
        for (uint256 i = 0; i < names.length; ++i) {
            length += 8 + bytes(names[i]).length;
        }
        // A word more than needed: lengths are written as whole words, of which only the first eight bytes stay.
        bytes memory encoded = new bytes(length + 32);
        uint256 cursor;
        assembly ("memory-safe") {
            cursor := add(encoded, 32)
            mcopy(cursor, add(head, 32), mload(head))
            cursor := add(cursor, mload(head))
        }
        for (uint256 i = 0; i < names.length; ++i) {
            bytes calldata name = bytes(names[i]);
            assembly ("memory-safe") {
                mstore(cursor, shl(192, name.length))
                calldatacopy(add(cursor, 8), name.offset, name.length)
                cursor := add(cursor, add(8, name.length))
            }
        }
        assembly ("memory-safe") {
            result := keccak256(add(encoded, 32), length)
        }
    }

    function _head(Provenance memory p, uint256 contributors) private pure returns (bytes memory) {
        bytes memory commitments =
            abi.encodePacked(uint64(32), p.index, uint64(32), p.base, uint64(32), p.adapter, uint64(32), p.datanetRoot);
        return abi.encodePacked(uint64(9), "poa/index", commitments, p.datanetVersion, uint64(contributors));
    }
}
