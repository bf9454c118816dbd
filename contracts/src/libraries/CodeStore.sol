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
