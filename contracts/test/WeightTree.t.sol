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

    function group(uint256[] calldata weights, uint256 index) external pure returns (uint256[] memory) {
        return WeightTree.groupOf(weights, index);
    }

    function testFuzz_rootAndPathsAreThoseOfThePlainTree(bytes32 id, uint256[] memory weights, uint256 index) public view {
        vm.assume(weights.length != 0);
        index = within(index, 0, weights.length - 1);
        bytes32[] memory nodes = this.leaves(id, weights);
        equal(nodes.length, (weights.length + 7) / 8, "eight to a leaf");
        for (uint256 i = 0; i < nodes.length; ++i) {
            equal(nodes[i], WeightTree.leaf(id, i, this.group(weights, 8 * i)), "leaf");
        }
        bytes32 root = WeightTree.root(nodes);
        equal(root, plainRoot(this.leaves(id, weights)), "root");
        bytes32[] memory path = WeightTree.path(this.leaves(id, weights), index / 8);
        uint256[] memory own = this.group(weights, index);
        equal(own[index % 8], weights[index], "weight");
        check(MerkleProof.verify(path, root, WeightTree.leaf(id, index / 8, own)), "path");
        check(!MerkleProof.verify(path, root, WeightTree.leaf(id, index / 8 + 1, own)), "another place");
        own[index % 8] ^= 1;
        check(!MerkleProof.verify(path, root, WeightTree.leaf(id, index / 8, own)), "another weight");
    }

    /// A group can't be made longer or shorter.
    function test_theNumberOfWeightsInALeafCounts() public pure {
        uint256[] memory two = new uint256[](2);
        uint256[] memory three = new uint256[](3);
        check(WeightTree.leaf(0, 0, two) != WeightTree.leaf(0, 0, three), "zeros count");
    }

    /// Inner nodes don't pass for leaves.
    function test_innerNodesAreNoLeaves() public view {
        bytes32[] memory nodes = this.leaves(0, new uint256[](16));
        bytes32 inner = Hashes.commutativeKeccak256(nodes[0], nodes[1]);
        check(inner != WeightTree.leaf(nodes[0], uint256(nodes[1]), new uint256[](1)), "96 bytes, not 64");
    }
}
