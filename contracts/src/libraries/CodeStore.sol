// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// @title Words kept as code
/// @notice Written once, never changed, and read whole at the price of one account, where storage slots cost as much each.
library CodeStore {
    /// @notice There is no code at the address that should hold it.
    error NothingStored(address place);

    /// @dev Returns all code but these eleven bytes: a STOP, so that nobody can run what follows, and the data.
    bytes private constant CREATION = hex"600b5981380380925939f300";

    /// @notice Keeps `data` for good.
    function write(bytes memory data) internal returns (address place) {
        bytes memory creation = bytes.concat(CREATION, data);
        assembly ("memory-safe") {
            place := create(0, add(creation, 32), mload(creation))
        }
        if (place == address(0)) revert NothingStored(place);
    }

    /// @notice Where the `nonce`th thing lies that `writer` has written, if it creates nothing else: from 1, below 2^32.
    /// @dev The low 160 bits of the hash of the RLP list of the two.
    function placeOf(address writer, uint64 nonce) internal pure returns (address) {
        bytes memory list;
        if (nonce < 0x80) list = abi.encodePacked(hex"d694", writer, uint8(nonce));
        else if (nonce < 1 << 8) list = abi.encodePacked(hex"d794", writer, hex"81", uint8(nonce));
        else if (nonce < 1 << 16) list = abi.encodePacked(hex"d894", writer, hex"82", uint16(nonce));
        else if (nonce < 1 << 24) list = abi.encodePacked(hex"d994", writer, hex"83", uint24(nonce));
        else list = abi.encodePacked(hex"da94", writer, hex"84", uint32(nonce));
        return address(uint160(uint256(keccak256(list))));
    }

    /// @notice What was written at `place`.
    function read(address place) internal view returns (bytes memory data) {
        uint256 size = place.code.length;
        if (size == 0) revert NothingStored(place);
        data = new bytes(size - 1);
        assembly ("memory-safe") {
            extcodecopy(place, add(data, 32), 1, sub(size, 1))
        }
    }
}
