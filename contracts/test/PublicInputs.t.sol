// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {PublicInputs} from "../src/libraries/PublicInputs.sol";
import {Scalar} from "../src/libraries/Scalar.sol";
import {Test} from "./support/Test.sol";

contract PublicInputsTest is Test {
    function bind(uint256[10] memory inputs, uint256[] calldata weights) external pure returns (uint256[10] memory, uint256 total) {
        total = PublicInputs.bindWeights(inputs, weights);
        return (inputs, total);
    }

    /// A vector computed elsewhere, for other implementations to check against too.
    function test_challengeAndEvaluationAreTheVectors() public view {
        string memory json = vm.readFile("test/vectors/public-inputs.json");
        uint256[] memory first = vm.parseJsonUintArray(json, ".inputs");
        uint256[10] memory inputs;
        for (uint256 i = 0; i < 8; ++i) {
            inputs[i] = first[i];
        }
        (inputs,) = this.bind(inputs, vm.parseJsonUintArray(json, ".weights"));
        equal(inputs[8], vm.parseJsonUint(json, ".challenge"), "challenge");
        equal(inputs[9], vm.parseJsonUint(json, ".evaluation"), "evaluation");
    }

    function testFuzz_evaluationIsThePolynomials(uint256[10] memory inputs, uint256[] memory weights) public view {
        uint256 sum;
        for (uint256 i = 0; i < weights.length; ++i) {
            weights[i] %= PublicInputs.MOST_WEIGHT / weights.length;
            sum += weights[i];
        }
        (uint256[10] memory bound, uint256 total) = this.bind(inputs, weights);
        equal(total, sum, "total");
        uint256 power = 1;
        uint256 y;
        for (uint256 i = 0; i < weights.length; ++i) {
            y = addmod(y, mulmod(weights[i], power, Scalar.ORDER), Scalar.ORDER);
            power = mulmod(power, bound[8], Scalar.ORDER);
        }
        equal(bound[9], y, "evaluation");
        check(bound[8] < Scalar.ORDER, "challenge is a scalar");
    }

    /// A trailing zero leaves the polynomial as it is; the challenge must still differ.
    function testFuzz_theChallengeBindsTheNumberOfWeights(uint256[10] memory inputs, uint32[] memory small) public view {
        uint256[] memory weights = new uint256[](small.length);
        uint256[] memory longer = new uint256[](small.length + 1);
        for (uint256 i = 0; i < small.length; ++i) {
            weights[i] = longer[i] = small[i] % (PublicInputs.MOST_WEIGHT / small.length);
        }
        (uint256[10] memory a,) = this.bind(inputs, weights);
        (uint256[10] memory b,) = this.bind(inputs, longer);
        check(a[8] != b[8], "challenges differ");
    }

    function testFuzz_digestsBecomeScalars(bytes32 digest) public pure {
        check(Scalar.isCanonical(Scalar.fromDigest(digest)), "below the order");
        equal(Scalar.fromDigest(digest), uint256(digest) & ((1 << 253) - 1), "low bits");
    }
}
