// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {TimelockController} from "@openzeppelin/contracts/governance/TimelockController.sol";

/// @title Timelock
/// @notice Owns the registries' and the settlement's settings. Only the governor proposes and cancels; anyone executes what has waited; it
/// administers itself from the start, so no deployer has a role in it.
contract Timelock is TimelockController {
    /// @param delay Seconds that a decision waits.
    /// @param governor The governor; its address may be known before it is deployed.
    constructor(uint256 delay, address governor) TimelockController(delay, _only(governor), _only(address(0)), address(0)) {}

    function _only(address account) private pure returns (address[] memory accounts) {
        accounts = new address[](1);
        accounts[0] = account;
    }
}
