// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

/// @title Merkle tree over a request's weights
/// @notice Settlement keeps one root instead of one balance per contributor; each collects their share with a path to it.
/// @dev A leaf holds eight weights, the last one what is left, which makes settling cheaper than a leaf each would. Pairs are hashed in sorted
/// order, as OpenZeppelin's `MerkleProof` expects; a node without a sibling moves up unchanged. A leaf hashes 96 bytes or more and an inner node
/// 64, so none can pass for the other, and a leaf names its request and place.
library WeightTree {
    /// @notice Weights in a leaf.
    uint256 internal constant GROUP = 8;

    /// @notice The leaf of one group of weights.
    function leaf(bytes32 requestId, uint256 group, uint256[] memory weights) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(requestId, group, weights));
    }

    /// @notice All leaves, in order: `leaf` of each group, hashed from one buffer.
    function leaves(bytes32 requestId, uint256[] calldata weights) internal pure returns (bytes32[] memory nodes) {
        uint256 count = (weights.length + GROUP - 1) / GROUP;
        nodes = new bytes32[](count);
        uint256[2 + GROUP] memory buffer;
        assembly ("memory-safe") {
            mstore(buffer, requestId)
            let left := shl(5, weights.length)
            for { let i := 0 } lt(i, count) { i := add(i, 1) } {
                let size := shl(5, GROUP)
                if lt(left, size) { size := left }
                mstore(add(buffer, 32), i)
                calldatacopy(add(buffer, 64), add(weights.offset, mul(i, shl(5, GROUP))), size)
                mstore(add(add(nodes, 32), shl(5, i)), keccak256(buffer, add(64, size)))
                left := sub(left, size)
            }
        }
    }

    /// @notice The weights that share a leaf with that of `index`.
    function groupOf(uint256[] calldata weights, uint256 index) internal pure returns (uint256[] memory group) {
        uint256 start = index - index % GROUP;
        group = new uint256[](Math.min(GROUP, weights.length - start));
        for (uint256 i = 0; i < group.length; ++i) {
            group[i] = weights[start + i];
        }
    }

    /// @notice Root of the tree; `nodes` is overwritten.
    function root(bytes32[] memory nodes) internal pure returns (bytes32) {
        uint256 width = nodes.length;
        while (width > 1) {
            width = _hashLevel(nodes, width);
        }
        return nodes[0];
    }

    /// @notice Path from leaf `index` (of the leaves, not the weights) to the root; `nodes` is overwritten.
    function path(bytes32[] memory nodes, uint256 index) internal pure returns (bytes32[] memory siblings) {
        uint256 width = nodes.length;
        uint256 length;
        siblings = new bytes32[](256);
        while (width > 1) {
            uint256 sibling = index % 2 == 0 ? index + 1 : index - 1;
            if (sibling < width) siblings[length++] = nodes[sibling];
            index >>= 1;
            width = _hashLevel(nodes, width);
        }
        assembly ("memory-safe") {
            mstore(siblings, length)
        }
    }

    /// @dev Replaces `width` nodes by their parents, in place. A node is read before its place is written: a parent lies no further than its children.
    function _hashLevel(bytes32[] memory nodes, uint256 width) private pure returns (uint256 next) {
        assembly ("memory-safe") {
            let write := add(nodes, 32)
            let read := write
            for { let end := add(read, shl(5, and(width, not(1)))) } lt(read, end) { read := add(read, 64) } {
                let left := mload(read)
                let right := mload(add(read, 32))
                let swapped := gt(left, right)
                mstore(shl(5, swapped), left)
                mstore(shl(5, iszero(swapped)), right)
                mstore(write, keccak256(0, 64))
                write := add(write, 32)
            }
            if and(width, 1) { mstore(write, mload(read)) }
            next := shr(1, add(width, 1))
        }
    }
}
