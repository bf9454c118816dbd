// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Test} from "./support/Test.sol";

/// @notice What is in artifacts/, and deployed by Rust, is what these sources compile to. `npm run check` compares interfaces and sizes too.
contract ArtifactsTest is Test {
    function test_bytecodeInTheTreeIsThatOfTheSources() public view {
        string[8] memory names = [
            "AttributionSettlement",
            "AttributionVerifier",
            "DatanetRegistry",
            "ModelRegistry",
            "OpenToken",
            "PoaGovernor",
            "StakingPool",
            "Timelock"
        ];
        for (uint256 i = 0; i < names.length; ++i) {
            string memory json = vm.readFile(string.concat("artifacts/", names[i], ".json"));
            bytes32 kept = keccak256(vm.parseJsonBytes(json, ".bytecode"));
            bytes32 fresh = keccak256(vm.getCode(string.concat(names[i], ".sol:", names[i])));
            equal(kept, fresh, string.concat(names[i], ": run `npm run artifacts`"));
        }
    }
}
