// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IAttributionVerifier} from "./IAttributionVerifier.sol";

/// @title Registry of models
/// @notice A model is a base, an adapter and an attribution index, all as commitments, with the datanet version they come from. An entry
/// never changes; its owner can only retire it. Anyone may register any commitments, with any payee: whoever pays for answers chooses the entry.
interface IModelRegistry {
    /// @notice What the owner states.
    /// @param base Commitment of the base model.
    /// @param adapter Commitment of the adapter.
    /// @param index Commitment of the attribution index.
    /// @param keyDigest Digest of the verifying key of the model's relation.
    /// @param datanetId The datanet that the adapter was trained on.
    /// @param datanetVersion Its version.
    /// @param payee Who gets the model owner's share.
    struct Registration {
        bytes32 base;
        bytes32 adapter;
        bytes32 index;
        bytes32 keyDigest;
        uint64 datanetId;
        uint64 datanetVersion;
        address payee;
    }

    /// @notice A registered model.
    /// @param base Commitment of the base model.
    /// @param adapter Commitment of the adapter.
    /// @param index Commitment of the attribution index.
    /// @param indexDigest Digest of the index's statement, top three bits cleared.
    /// @param keyDigest Digest of the verifying key.
    /// @param payee Who gets the model owner's share.
    /// @param contributors Contributors of the datanet version; as many weights as a proof has.
    /// @param listId Their list in the datanet registry.
    /// @param owner Who registered it.
    /// @param datanetId The datanet.
    /// @param retired Whether new requests are refused.
    /// @param datanetVersion The datanet's version.
    struct Model {
        bytes32 base;
        bytes32 adapter;
        bytes32 index;
        uint256 indexDigest;
        bytes32 keyDigest;
        address payee;
        uint32 contributors;
        uint64 listId;
        address owner;
        uint64 datanetId;
        bool retired;
        uint64 datanetVersion;
    }

    /// @notice The part of a model that a settlement rests on.
    /// @param base Commitment of the base model.
    /// @param adapter Commitment of the adapter.
    /// @param index Commitment of the attribution index.
    /// @param indexDigest Digest of the index's statement, top three bits cleared.
    /// @param payee Who gets the model owner's share.
    /// @param contributors As many weights as a proof has.
    struct Claim {
        bytes32 base;
        bytes32 adapter;
        bytes32 index;
        uint256 indexDigest;
        address payee;
        uint32 contributors;
    }

    event ModelRegistered(
        uint64 indexed modelId, address indexed owner, uint64 indexed datanetId, Registration registration, bytes32 indexDigest
    );
    event ModelRetired(uint64 indexed modelId);
    event VerifierSet(bytes32 indexed keyDigest, address indexed verifier);

    /// @notice The caller doesn't own the model.
    error NotModelOwner(uint64 modelId, address caller);
    /// @notice There is no such model.
    error UnknownModel(uint64 modelId);
    /// @notice The model takes no new requests.
    error Retired(uint64 modelId);
    /// @notice A commitment is zero or not below the field's order.
    error InvalidCommitment(bytes32 commitment);
    /// @notice Nobody would get the model owner's share.
    error NoPayee();
    /// @notice The names aren't those of the datanet version, in its order.
    error NamesDiffer(bytes32 expected, bytes32 found);
    /// @notice Governance has approved no verifier for this key.
    error NoVerifier(bytes32 keyDigest);
    /// @notice The verifier is one of another key.
    error KeyMismatch(bytes32 expected, bytes32 found);

    /// @notice Registers a model. The index's digest is computed here, from the registered datanet version.
    /// @param registration What the owner states.
    /// @param names Contributors' names, in the order of the datanet version.
    function register(Registration calldata registration, string[] calldata names) external returns (uint64 modelId);

    /// @notice Refuses new requests from now on; escrowed ones stay as they are.
    function retire(uint64 modelId) external;

    /// @notice Governance only: which verifier serves a key; zero withdraws it. Requests already escrowed keep theirs.
    function setVerifier(bytes32 keyDigest, IAttributionVerifier verifier) external;

    /// @notice A registered model.
    function model(uint64 modelId) external view returns (Model memory);

    /// @notice What settlements of a model rest on; its ABI encoding lies, as code, at `CodeStore.placeOf(registry, modelId)`.
    function claimOf(uint64 modelId) external view returns (Claim memory);

    /// @notice The account of contributor `index` of a model.
    function contributorAt(uint64 modelId, uint256 index) external view returns (address);

    /// @notice The accounts of a model's contributors, in the order of weights.
    function contributorsOf(uint64 modelId) external view returns (address[] memory);

    /// @notice The verifier of new requests for a model, and who gets the model owner's share; reverts if the model is retired or its key has
    /// no verifier.
    function serviceOf(uint64 modelId) external view returns (IAttributionVerifier verifier, address payee);

    /// @notice The verifier approved for a key; zero if none.
    function verifiers(bytes32 keyDigest) external view returns (IAttributionVerifier);
}
