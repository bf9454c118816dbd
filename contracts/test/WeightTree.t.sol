// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Hashes} from "@openzeppelin/contracts/utils/cryptography/Hashes.sol";
import {MerkleProof} from "@openzeppelin/contracts/utils/cryptography/MerkleProof.sol";
import {WeightTree} from "../src/libraries/WeightTree.sol";
import {Test} from "./support/Test.sol";

contract WeightTreeTest is Test {
    function leaves(bytes32 id, uint256[] calldata weights) external pure returns (bytes32[] memory) {
        return WeightTree.leaves(id, weights);
    }

    /// The same tree, by the definition.
    function plainRoot(bytes32[] memory nodes) private pure returns (bytes32) {
        uint256 width = nodes.length;
        for (; width > 1; width = (width + 1) / 2) {
            for (uint256 i = 0; i < width; i += 2) {
                nodes[i / 2] = i + 1 < width ? Hashes.commutativeKeccak256(nodes[i], nodes[i + 1]) : nodes[i];
            }
        }
        return nodes[0];
    }

    function testFuzz_rootAndPathsAreThoseOfThePlainTree(bytes32 id, uint256[] memory weights, uint256 index) public view {
        vm.assume(weights.length != 0);
        index = within(index, 0, weights.length - 1);
        bytes32[] memory nodes = this.leaves(id, weights);
        for (uint256 i = 0; i < weights.length; ++i) {
            equal(nodes[i], WeightTree.leaf(id, i, weights[i]), "leaf");
        }
        bytes32 root = WeightTree.root(nodes);
        equal(root, plainRoot(this.leaves(id, weights)), "root");
        bytes32[] memory path = WeightTree.path(this.leaves(id, weights), index);
        check(MerkleProof.verify(path, root, WeightTree.leaf(id, index, weights[index])), "path");
        check(!MerkleProof.verify(path, root, WeightTree.leaf(id, index, weights[index] ^ 1)), "another weight");
        check(!MerkleProof.verify(path, root, WeightTree.leaf(id, index + 1, weights[index])), "another index");
    }

    /// Inner nodes don't pass for leaves.
    function test_innerNodesAreNoLeaves() public view {
        uint256[] memory weights = new uint256[](4);
        bytes32[] memory nodes = this.leaves(0, weights);
        bytes32 inner = Hashes.commutativeKeccak256(nodes[0], nodes[1]);
        check(inner != WeightTree.leaf(nodes[0], uint256(nodes[1]), 0), "96 bytes, not 64");
    }
}
