// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {IAttributionVerifier} from "./interfaces/IAttributionVerifier.sol";
import {IDatanetRegistry} from "./interfaces/IDatanetRegistry.sol";
import {IModelRegistry} from "./interfaces/IModelRegistry.sol";
import {CodeStore} from "./libraries/CodeStore.sol";
import {IndexStatement} from "./libraries/IndexStatement.sol";
import {Scalar} from "./libraries/Scalar.sol";

/// @title Registry of models
/// @notice The owner is the timelock. All it can do is say which verifier new requests get.
/// @dev What settlements rest on, a model's `Claim`, is kept as code, at `CodeStore.placeOf(registry, modelId)`: the registry creates nothing
/// else. Settlements read it there, without a call, for less than a storage slot and a half.
contract ModelRegistry is IModelRegistry, Ownable {
    /// @notice Where datanets are registered.
    IDatanetRegistry public immutable datanets;

    /// @inheritdoc IModelRegistry
    mapping(bytes32 keyDigest => IAttributionVerifier) public verifiers;

    /// @dev What is kept of a model besides its `Claim`. Every registered model has an owner.
    /// @param owner Who registered it.
    /// @param listId Its contributors' list in the datanet registry.
    /// @param contributors How many.
    struct Entry {
        address owner;
        uint64 listId;
        uint32 contributors;
        bytes32 keyDigest;
        address payee;
        uint64 datanetId;
        bool retired;
        uint64 datanetVersion;
    }

    uint64 private _modelCount;
    mapping(uint64 modelId => Entry) private _models;

    /// @param datanets_ Where datanets are registered.
    /// @param owner_ The timelock.
    /// @param initial Verifiers to begin with.
    constructor(IDatanetRegistry datanets_, address owner_, IAttributionVerifier[] memory initial) Ownable(owner_) {
        datanets = datanets_;
        for (uint256 i = 0; i < initial.length; ++i) {
            _setVerifier(initial[i].keyDigest(), initial[i]);
        }
    }

    /// @inheritdoc IModelRegistry
    function register(Registration calldata r, string[] calldata names) external returns (uint64 modelId) {
        _checkCommitment(r.base);
        _checkCommitment(r.adapter);
        _checkCommitment(r.index);
        if (r.payee == address(0)) revert NoPayee();
        IDatanetRegistry.Version memory v = datanets.version(r.datanetId, r.datanetVersion);
        bytes32 found = datanets.namesDigest(names);
        if (found != v.namesDigest) revert NamesDiffer(v.namesDigest, found);
        bytes32 digest = IndexStatement.digest(IndexStatement.Provenance(r.index, r.base, r.adapter, v.root, r.datanetVersion), names);
        modelId = ++_modelCount;
        _models[modelId] = _entry(r, v);
        bytes memory claim = abi.encode(Claim(r.base, r.adapter, r.index, Scalar.fromDigest(digest), r.payee, v.contributors));
        if (CodeStore.write(claim) != CodeStore.placeOf(address(this), modelId)) revert UnknownModel(modelId);
        emit ModelRegistered(modelId, msg.sender, r.datanetId, r, digest);
    }

    /// @inheritdoc IModelRegistry
    function retire(uint64 modelId) external {
        Entry storage m = _models[modelId];
        if (m.owner != msg.sender) revert NotModelOwner(modelId, msg.sender);
        if (m.retired) revert Retired(modelId);
        m.retired = true;
        emit ModelRetired(modelId);
    }

    /// @inheritdoc IModelRegistry
    function setVerifier(bytes32 keyDigest, IAttributionVerifier verifier) external onlyOwner {
        if (address(verifier) != address(0)) {
            bytes32 found = verifier.keyDigest();
            if (found != keyDigest) revert KeyMismatch(keyDigest, found);
        }
        _setVerifier(keyDigest, verifier);
    }

    /// @inheritdoc IModelRegistry
    function model(uint64 modelId) external view returns (Model memory) {
        Entry storage m = _known(modelId);
        Claim memory c = _claim(modelId);
        return Model({
            base: c.base,
            adapter: c.adapter,
            index: c.index,
            indexDigest: c.indexDigest,
            keyDigest: m.keyDigest,
            payee: m.payee,
            contributors: m.contributors,
            listId: m.listId,
            owner: m.owner,
            datanetId: m.datanetId,
            retired: m.retired,
            datanetVersion: m.datanetVersion
        });
    }

    /// @inheritdoc IModelRegistry
    function claimOf(uint64 modelId) external view returns (Claim memory) {
        _known(modelId);
        return _claim(modelId);
    }

    /// @inheritdoc IModelRegistry
    function contributorAt(uint64 modelId, uint256 index) external view returns (address) {
        return datanets.contributorAt(_known(modelId).listId, index);
    }

    /// @inheritdoc IModelRegistry
    function contributorsOf(uint64 modelId) external view returns (address[] memory) {
        Entry storage m = _known(modelId);
        return datanets.contributors(m.datanetId, m.datanetVersion);
    }

    /// @inheritdoc IModelRegistry
    function serviceOf(uint64 modelId) external view returns (IAttributionVerifier verifier, address payee) {
        Entry storage m = _known(modelId);
        if (m.retired) revert Retired(modelId);
        verifier = verifiers[m.keyDigest];
        if (address(verifier) == address(0)) revert NoVerifier(m.keyDigest);
        payee = m.payee;
    }

    function _known(uint64 modelId) private view returns (Entry storage m) {
        m = _models[modelId];
        if (m.owner == address(0)) revert UnknownModel(modelId);
    }

    function _claim(uint64 modelId) private view returns (Claim memory) {
        return abi.decode(CodeStore.read(CodeStore.placeOf(address(this), modelId)), (Claim));
    }

    function _entry(Registration calldata r, IDatanetRegistry.Version memory v) private view returns (Entry memory) {
        return Entry({
            owner: msg.sender,
            listId: v.listId,
            contributors: v.contributors,
            keyDigest: r.keyDigest,
            payee: r.payee,
            datanetId: r.datanetId,
            retired: false,
            datanetVersion: r.datanetVersion
        });
    }

    function _setVerifier(bytes32 keyDigest, IAttributionVerifier verifier) private {
        verifiers[keyDigest] = verifier;
        emit VerifierSet(keyDigest, address(verifier));
    }

    function _checkCommitment(bytes32 commitment) private pure {
        if (commitment == 0 || !Scalar.isCanonical(uint256(commitment))) revert InvalidCommitment(commitment);
    }
}
