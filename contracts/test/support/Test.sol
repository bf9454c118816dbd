// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Vm} from "./Vm.sol";

/// @notice What tests share: cheat codes and comparisons that revert.
abstract contract Test {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    error NotEqual(string what, uint256 found, uint256 expected);
    error Failed(string what);

    function equal(uint256 found, uint256 expected, string memory what) internal pure {
        if (found != expected) revert NotEqual(what, found, expected);
    }

    function equal(address found, address expected, string memory what) internal pure {
        equal(uint256(uint160(found)), uint256(uint160(expected)), what);
    }

    function equal(bytes32 found, bytes32 expected, string memory what) internal pure {
        equal(uint256(found), uint256(expected), what);
    }

    function check(bool condition, string memory what) internal pure {
        if (!condition) revert Failed(what);
    }

    /// @notice `value` brought into `low..=high`.
    function within(uint256 value, uint256 low, uint256 high) internal pure returns (uint256) {
        if (value >= low && value <= high) return value;
        return low + value % (high - low + 1);
    }
}
