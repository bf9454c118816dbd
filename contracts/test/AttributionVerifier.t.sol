// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {AttributionVerifier} from "../src/AttributionVerifier.sol";
import {IAttributionVerifier} from "../src/interfaces/IAttributionVerifier.sol";
import {Scalar} from "../src/libraries/Scalar.sol";
import {FreeRawVerifier, HungryRawVerifier, MockProof, MockRawVerifier, TalkativeRawVerifier} from "./support/MockRawVerifier.sol";
import {Tampering} from "./support/Tampering.sol";

contract AttributionVerifierTest is Tampering {
    uint256 private constant WORDS = 80;
    uint256 private constant LIMIT = 450_000;
    bytes32 private constant KEY = keccak256("key");

    MockRawVerifier private raw;
    AttributionVerifier private verifier;

    function setUp() public {
        raw = new MockRawVerifier(WORDS);
        verifier = new AttributionVerifier(address(raw), KEY, 32 * WORDS, LIMIT);
    }

    function inputs() private pure returns (uint256[10] memory values) {
        for (uint256 i = 0; i < 10; ++i) {
            values[i] = uint256(keccak256(abi.encode("input", i))) >> 4;
        }
    }

    function test_settingsAreReadable() public view {
        equal(verifier.raw(), address(raw), "raw");
        equal(verifier.keyDigest(), KEY, "key");
        equal(verifier.proofLength(), 32 * WORDS, "length");
        equal(verifier.gasLimit(), LIMIT, "gas");
    }

    function test_everyTamperedProofIsRefusedAtABoundedPrice() public view {
        uint256[10] memory values = inputs();
        uint256 variants = requireAllRefused(verifier, LIMIT, values, MockProof.make(values, WORDS));
        equal(variants, 4 * 10 + 2 * WORDS + 6, "variants");
    }

    /// The mock has the generated verifier's weaknesses, else the tests above would show nothing about the front.
    function test_theRawVerifierAloneIsWeak() public view {
        uint256[10] memory values = inputs();
        bytes memory proof = MockProof.make(values, WORDS);
        values[3] += Scalar.ORDER;
        (bool taken,) = address(raw).staticcall(abi.encodePacked(values, proof, hex"ff"));
        check(taken, "input plus order and appended bytes pass the raw verifier");
    }

    function test_boundaryOfTheField() public {
        AttributionVerifier free = new AttributionVerifier(address(new FreeRawVerifier()), KEY, 32, LIMIT);
        uint256[10] memory values;
        for (uint256 i = 0; i < 10; ++i) {
            values[i] = Scalar.ORDER - 1;
            check(free.verify(values, new bytes(32)), "the largest scalar");
            values[i] = Scalar.ORDER;
            check(!free.verify(values, new bytes(32)), "the order");
            values[i] = 0;
        }
    }

    function test_tooLittleGasIsNotABadProof() public {
        uint256[10] memory values = inputs();
        bytes memory proof = MockProof.make(values, WORDS);
        vm.expectPartialRevert(IAttributionVerifier.InsufficientGas.selector);
        verifier.verify{gas: LIMIT}(values, proof);
        check(verifier.verify{gas: LIMIT * 65 / 64 + 40_000}(values, proof), "enough gas");
    }

    function testFuzz_anyGasGivesTheTruthOrAnError(uint256 gas_) public view {
        uint256[10] memory values = inputs();
        bytes memory proof = MockProof.make(values, WORDS);
        gas_ = within(gas_, 0, 2 * LIMIT);
        try verifier.verify{gas: gas_}(values, proof) returns (bool verified) {
            check(verified, "a good proof is never called bad");
        } catch {}
    }

    /// Around the limit, with a verifier that needs all of it: never a no, and a yes as soon as the front lets the call through.
    /// forge-config: default.isolate = true
    function testFuzz_theLimitIsForwardedWhole(uint256 gas_) public {
        address hungry = address(new HungryRawVerifier(LIMIT - 200));
        AttributionVerifier exact = new AttributionVerifier(hungry, KEY, 32, LIMIT);
        gas_ = within(gas_, LIMIT, LIMIT + 20_000);
        try exact.verify{gas: gas_}(inputs(), new bytes(32)) returns (bool verified) {
            check(verified, "a good proof is never called bad");
        } catch {}
        check(exact.verify{gas: LIMIT * 64 / 63 + 20_000}(inputs(), new bytes(32)), "enough");
    }

    function testFuzz_randomBytesNeverVerify(uint256[10] memory values, bytes memory proof) public view {
        check(!verifier.verify{gas: 2 * LIMIT}(values, proof), "random proof");
    }

    function testFuzz_randomProofsOfTheRightLengthNeverVerify(uint256 seed) public view {
        check(!verifier.verify{gas: 2 * LIMIT}(inputs(), abi.encodePacked(new bytes(32 * WORDS - 32), seed)), "random");
    }

    function test_anAnswerWithDataIsNotAYes() public {
        AttributionVerifier odd = new AttributionVerifier(address(new TalkativeRawVerifier()), KEY, 32, LIMIT);
        check(!odd.verify(inputs(), new bytes(32)), "the generated verifier returns nothing");
    }

    function test_anAddressWithoutCodeIsRefused() public {
        vm.expectRevert(abi.encodeWithSelector(IAttributionVerifier.NoVerifierCode.selector, address(0xdead)));
        new AttributionVerifier(address(0xdead), KEY, 32, LIMIT);
        vm.expectRevert(IAttributionVerifier.EmptyLimits.selector);
        new AttributionVerifier(address(raw), KEY, 0, LIMIT);
        vm.expectRevert(IAttributionVerifier.EmptyLimits.selector);
        new AttributionVerifier(address(raw), KEY, 32, 0);
    }
}
