// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {CodeStore} from "../src/libraries/CodeStore.sol";
import {Test} from "./support/Test.sol";

contract CodeStoreTest is Test {
    function write(bytes calldata data) external returns (address) {
        return CodeStore.write(data);
    }

    function read(address place) external view returns (bytes memory) {
        return CodeStore.read(place);
    }

    function testFuzz_whatIsWrittenIsRead(bytes calldata data) public {
        address place = this.write(data);
        equal(keccak256(this.read(place)), keccak256(data), "data");
    }

    /// Data that would destroy the contract if it ran: `SELFDESTRUCT(ADDRESS)`.
    function test_whatIsKeptNeverRuns() public {
        address place = this.write(hex"30ff");
        equal(uint8(place.code[0]), 0, "STOP stands before it");
        (bool done, bytes memory answer) = place.call("");
        check(done && answer.length == 0, "a call does nothing");
        equal(keccak256(this.read(place)), keccak256(hex"30ff"), "still there");
    }

    function test_nothingIsReadWhereNothingIsKept() public {
        vm.expectRevert(abi.encodeWithSelector(CodeStore.NothingStored.selector, address(0xdead)));
        this.read(address(0xdead));
    }
}
