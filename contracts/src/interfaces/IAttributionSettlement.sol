// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {INPUTS} from "../libraries/PublicInputs.sol";

/// @title Settlement of attribution proofs
/// @notice A user escrows a fee for one answer of one model. A valid proof releases it, split by governed shares; without one until the
/// deadline, the user gets it back. Everything a request is settled under is fixed when it is escrowed.
interface IAttributionSettlement {
    /// @notice What fees are paid in.
    enum Asset {
        Ether,
        Open
    }

    /// @notice What became of a request.
    enum Status {
        None,
        Escrowed,
        Settled,
        Refunded
    }

    /// @notice Shares in basis points, 10,000 together, and who gets the first and the third.
    /// @param platformBps The platform's share; it also gets what rounding leaves.
    /// @param modelOwnerBps The model owner's share.
    /// @param stakersBps The stakers' share.
    /// @param contributorsBps The contributors' share, divided by weight.
    /// @param platform Account of the platform.
    /// @param stakers The staking pool.
    struct Split {
        uint16 platformBps;
        uint16 modelOwnerBps;
        uint16 stakersBps;
        uint16 contributorsBps;
        address platform;
        address stakers;
    }

    /// @notice What a user asks for.
    /// @param modelId The model that must answer.
    /// @param splitId The split agreed to; it must be the current one.
    /// @param asset What the fee is paid in.
    /// @param amount The fee.
    /// @param deadline Last second in which a proof is accepted; later by as long as settling is paused in between.
    /// @param promptDigest The salted digest of the prompt that must be answered; zero accepts any prompt, so any exchange with the model.
    /// @param tokenDigest The salted digest of prompt and answer that the proof must have; zero accepts any answer.
    /// @param settler The only account that may settle; zero for anyone.
    /// @param verifier The contract whose word on the proof counts; it must be the one approved for the model's key.
    /// @param verifierKey Digest of the verifying key, which the verifier must state.
    struct Terms {
        uint64 modelId;
        uint32 splitId;
        Asset asset;
        uint128 amount;
        uint40 deadline;
        uint256 promptDigest;
        uint256 tokenDigest;
        address settler;
        address verifier;
        bytes32 verifierKey;
    }

    /// @notice The public inputs of a proof that the chain doesn't know by itself.
    /// @param statement Digest of the whole statement.
    /// @param prompt Digest of the prompt.
    /// @param tokens Digest of prompt and answer.
    struct Digests {
        uint256 statement;
        uint256 prompt;
        uint256 tokens;
    }

    /// @notice A request.
    /// @param payer Who escrowed, and is refunded.
    /// @param deadline Last second in which a proof is accepted, as far as pauses have moved it.
    /// @param splitId The split it is paid out by.
    /// @param asset What the fee is paid in.
    /// @param amount The fee.
    /// @param modelId The model.
    /// @param totalWeight Sum of the weights; zero until settled.
    /// @param status What became of it; in the slot of `totalWeight`, since settling writes both.
    /// @param verifier The verifier whose word counts.
    /// @param bindsTokens Whether one answer only is accepted; then its digest is kept beside.
    /// @param namesSettler Whether one account only may settle; then it is kept beside.
    /// @param binding Until settled, the prompt digest that the proof must have, or `ANY_PROMPT`; once settled with weights, the root of their
    /// tree. One slot, written when escrowed, makes settling cheaper.
    struct Request {
        address payer;
        uint40 deadline;
        uint32 splitId;
        Asset asset;
        uint128 amount;
        uint64 modelId;
        uint56 totalWeight;
        Status status;
        address verifier;
        bool bindsTokens;
        bool namesSettler;
        bytes32 binding;
    }

    /// @notice What everyone gets of one settlement. The parts add up to the fee.
    /// @param platform The platform's share, without dust.
    /// @param modelOwner The model owner's share.
    /// @param stakers The stakers' share.
    /// @param contributors What contributors can collect, together.
    /// @param returned The contributors' share when every weight is zero: it goes back to the payer.
    /// @param dust What rounding leaves; it goes to the platform.
    struct Distribution {
        uint256 platform;
        uint256 modelOwner;
        uint256 stakers;
        uint256 contributors;
        uint256 returned;
        uint256 dust;
    }

    /// @notice One contributor's share of one settlement, as `collect` takes it.
    /// @param requestId The request.
    /// @param index The contributor's number.
    /// @param weights Their weight and those kept with it, from `weightPath`.
    /// @param path From `weightPath`.
    struct Collection {
        bytes32 requestId;
        uint256 index;
        uint256[] weights;
        bytes32[] path;
    }

    event Escrowed(bytes32 indexed requestId, address indexed payer, uint64 indexed modelId, uint256 nonce, address verifier, Terms terms);
    /// @notice Everything that is needed to verify the settlement without the chain's word for it.
    event Settled(
        bytes32 indexed requestId, uint64 indexed modelId, address indexed verifier, uint256[INPUTS] publicInputs, uint256[] weights, bytes proof
    );
    event Collected(bytes32 indexed requestId, uint256 indexed index, address indexed contributor, uint256 amount);
    event Refunded(bytes32 indexed requestId, address indexed payer, Asset asset, uint256 amount);
    event Withdrawn(Asset indexed asset, address indexed account, address to, uint256 amount);
    event SplitSet(uint32 indexed splitId, Split split);
    event GuardianSet(address indexed guardian);
    event Paused(address indexed by, uint256 until);
    event Unpaused(address indexed by);

    /// @notice Escrow and settlement are paused.
    error IsPaused(uint256 until);
    /// @notice The split isn't the current one.
    error StaleSplit(uint32 expected, uint32 found);
    /// @notice The shares don't add up to 10,000, or a share has no account.
    error InvalidSplit();
    /// @notice The fee is zero.
    error NoFee();
    /// @notice The ether sent isn't what the terms say.
    error EtherAmount(uint256 expected, uint256 found);
    /// @notice Deadlines lie between `MIN_WINDOW` and `MAX_WINDOW` from now.
    error DeadlineOutOfRange(uint256 earliest, uint256 latest, uint256 found);
    /// @notice A value isn't below the field's order.
    error NotAScalar(uint256 value);
    /// @notice The request isn't in the state that the call needs.
    error UnexpectedStatus(bytes32 requestId, Status expected, Status found);
    /// @notice The deadline is over.
    error DeadlinePassed(bytes32 requestId, uint256 deadline);
    /// @notice The deadline isn't over yet.
    error DeadlineNotPassed(bytes32 requestId, uint256 deadline);
    /// @notice The proof is about another prompt than the one paid for.
    error PromptDigestMismatch(uint256 expected, uint256 found);
    /// @notice The proof is about another exchange than the one paid for.
    error TokenDigestMismatch(uint256 expected, uint256 found);
    /// @notice The payer named another account to settle.
    error NotSettler(bytes32 requestId, address settler, address caller);
    /// @notice The verifier approved for the model isn't the one that the terms name, or is one of another key.
    error VerifierDiffers(address expected, bytes32 expectedKey, address found, bytes32 foundKey);
    /// @notice There must be one weight per contributor.
    error WeightCount(uint256 expected, uint256 found);
    /// @notice The proof doesn't verify.
    error InvalidProof(bytes32 requestId);
    /// @notice The weight isn't in the settlement.
    error InvalidPath(bytes32 requestId, uint256 index);
    /// @notice The share has been collected.
    error AlreadyCollected(bytes32 requestId, uint256 index);
    /// @notice There is nothing to withdraw.
    error NothingToWithdraw(Asset asset, address account);
    /// @notice The receiver refused the ether.
    error TransferFailed(address to);
    /// @notice The caller may not pause, or not now, or not for so long.
    error PauseRefused(address caller);

    /// @notice Escrows a fee. In OPEN, the contract must be approved for the amount; in ether, the call must carry it.
    /// @return requestId What the proof must name; its top three bits are zero.
    function escrow(Terms calldata terms) external payable returns (bytes32 requestId);

    /// @notice Releases a fee. Who is paid doesn't depend on the caller, and unless the terms name a settler, anyone may call.
    /// @param requestId The request.
    /// @param digests Public inputs 0, 6 and 7.
    /// @param weights One per contributor, in the order of the datanet version.
    /// @param proof The outer proof.
    function settle(bytes32 requestId, Digests calldata digests, uint256[] calldata weights, bytes calldata proof) external;

    /// @notice After the deadline, credits the fee to its payer. Works while paused, if the deadline passed before.
    function refund(bytes32 requestId) external;

    /// @notice Credits contributors with their shares. Anyone may call; a contributor without weight has nothing to collect.
    function collect(Collection[] calldata collections) external;

    /// @notice Sends everything credited to the caller.
    function withdraw(Asset asset, address to) external returns (uint256 amount);

    /// @notice Governance only: the split of requests from now on.
    function setSplit(Split calldata next) external returns (uint32 splitId);

    /// @notice Stops escrow and settlement for a while. Collection and withdrawal go on, and refunds of requests whose deadline has passed;
    /// the deadlines of all others wait.
    /// @dev Governance: up to `MAX_PAUSE`. The guardian: up to `GUARDIAN_PAUSE`. After a pause, none begins for as long as it was, so a deadline
    /// moves by at most its request's window and `MAX_PAUSE`. Governance may change when a pause ends that is going on.
    function pause(uint256 duration) external;

    /// @notice Governance only: ends a pause, if there is one.
    function unpause() external;

    /// @notice Governance only: who may pause in an emergency; zero for nobody.
    function setGuardian(address guardian) external;

    /// @notice When settling is possible again; in the past or now if it is.
    function pausedUntil() external view returns (uint256);

    /// @notice A request.
    function request(bytes32 requestId) external view returns (Request memory);

    /// @notice A split, current or past.
    function split(uint32 splitId) external view returns (Split memory);

    /// @notice Number of the current split.
    function currentSplit() external view returns (uint32);

    /// @notice What an account can withdraw.
    function claimable(Asset asset, address account) external view returns (uint256);

    /// @notice Whether a contributor's share of a request has been collected.
    function collected(bytes32 requestId, uint256 index) external view returns (bool);

    /// @notice Requests that an account has escrowed; part of the next one's id.
    function nonces(address payer) external view returns (uint256);

    /// @notice The id that the next request of `payer` gets under these terms.
    function nextRequestId(address payer, Terms calldata terms) external view returns (bytes32);

    /// @notice The public inputs that a proof for this request is checked against. Reverts as `settle` would on weights.
    function publicInputs(bytes32 requestId, Digests calldata digests, uint256[] calldata weights)
        external
        view
        returns (uint256[INPUTS] memory);

    /// @notice Who would get what: the parts of the fee, and each contributor's account and amount.
    function preview(bytes32 requestId, uint256[] calldata weights)
        external
        view
        returns (Distribution memory distribution, address[] memory contributors, uint256[] memory amounts);

    /// @notice What `collect` takes, from the weights in the event `Settled`: those kept with the contributor's, and their path.
    function weightPath(bytes32 requestId, uint256[] calldata weights, uint256 index)
        external
        pure
        returns (uint256[] memory group, bytes32[] memory path);
}
