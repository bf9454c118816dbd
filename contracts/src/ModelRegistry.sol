// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {IAttributionVerifier} from "./interfaces/IAttributionVerifier.sol";
import {IDatanetRegistry} from "./interfaces/IDatanetRegistry.sol";
import {IModelRegistry} from "./interfaces/IModelRegistry.sol";
import {IndexStatement} from "./libraries/IndexStatement.sol";
import {Scalar} from "./libraries/Scalar.sol";

/// @title Registry of models
/// @notice The owner is the timelock. All it can do is say which verifier new requests get.
contract ModelRegistry is IModelRegistry, Ownable {
    /// @notice Where datanets are registered.
    IDatanetRegistry public immutable datanets;

    /// @inheritdoc IModelRegistry
    mapping(bytes32 keyDigest => IAttributionVerifier) public verifiers;

    uint64 private _modelCount;
    mapping(uint64 modelId => Model) private _models;

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
        _models[modelId] = _entry(r, v, digest);
        emit ModelRegistered(modelId, msg.sender, r.datanetId, r, digest);
    }

    /// @inheritdoc IModelRegistry
    function retire(uint64 modelId) external {
        Model storage m = _models[modelId];
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
        return _known(modelId);
    }

    /// @inheritdoc IModelRegistry
    function claimOf(uint64 modelId) external view returns (Claim memory) {
        Model storage m = _known(modelId);
        return Claim(m.base, m.adapter, m.index, m.indexDigest, m.payee, m.contributors);
    }

    /// @inheritdoc IModelRegistry
    function contributorAt(uint64 modelId, uint256 index) external view returns (address) {
        return datanets.contributorAt(_known(modelId).listId, index);
    }

    /// @inheritdoc IModelRegistry
    function contributorsOf(uint64 modelId) external view returns (address[] memory) {
        Model storage m = _known(modelId);
        return datanets.contributors(m.datanetId, m.datanetVersion);
    }

    /// @inheritdoc IModelRegistry
    function serviceOf(uint64 modelId) external view returns (IAttributionVerifier verifier, address payee) {
        Model storage m = _known(modelId);
        if (m.retired) revert Retired(modelId);
        verifier = verifiers[m.keyDigest];
        if (address(verifier) == address(0)) revert NoVerifier(m.keyDigest);
        payee = m.payee;
    }

    /// @dev Every registered model has a payee, which lies beside what settlements read.
    function _known(uint64 modelId) private view returns (Model storage m) {
        m = _models[modelId];
        if (m.payee == address(0)) revert UnknownModel(modelId);
    }

    function _entry(Registration calldata r, IDatanetRegistry.Version memory v, bytes32 digest) private view returns (Model memory) {
        return Model({
            base: r.base,
            adapter: r.adapter,
            index: r.index,
            indexDigest: Scalar.fromDigest(digest),
            keyDigest: r.keyDigest,
            payee: r.payee,
            contributors: v.contributors,
            listId: v.listId,
            owner: msg.sender,
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
