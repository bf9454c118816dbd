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

    function test_placesFollowFromWriterAndNonce() public view {
        uint64[11] memory nonces = [uint64(1), 127, 128, 255, 256, 65_535, 65_536, 1 << 24, (1 << 24) - 1, 1 << 31, type(uint32).max];
        for (uint256 i = 0; i < nonces.length; ++i) {
            equal(CodeStore.placeOf(address(this), nonces[i]), vm.computeCreateAddress(address(this), nonces[i]), "place");
        }
    }

    function test_nothingIsReadWhereNothingIsKept() public {
        vm.expectRevert(abi.encodeWithSelector(CodeStore.NothingStored.selector, address(0xdead)));
        this.read(address(0xdead));
    }
}
