// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IDatanetRegistry} from "./interfaces/IDatanetRegistry.sol";

/// @title Registry of datanets
/// @notice No account has power over another's datanet; nothing published can be changed. A name's account can be, for versions to come.
contract DatanetRegistry is IDatanetRegistry {
    /// @notice Most contributors a version can have.
    uint256 public constant MAX_CONTRIBUTORS = 4096;
    /// @notice Longest name, in bytes.
    uint256 public constant MAX_NAME_LENGTH = 64;

    struct Datanet {
        address owner;
        uint64 versions;
        uint64 draftList;
    }

    struct List {
        bytes32 namesDigest;
        address[] accounts;
    }

    uint64 private _datanetCount;
    uint64 private _contributionCount;
    uint64 private _listCount;
    mapping(uint64 datanetId => Datanet) private _datanets;
    mapping(uint64 contributionId => Contribution) private _contributions;
    mapping(uint64 datanetId => mapping(uint64 number => Version)) private _versions;
    mapping(uint64 datanetId => mapping(bytes32 nameHash => address)) public nameHolder;
    mapping(uint64 listId => List) private _lists;
    mapping(uint64 listId => mapping(bytes32 nameHash => bool)) private _listed;

    modifier onlyDatanetOwner(uint64 datanetId) {
        if (_datanets[datanetId].owner != msg.sender) revert NotDatanetOwner(datanetId, msg.sender);
        _;
    }

    /// @inheritdoc IDatanetRegistry
    function create(string calldata name) external returns (uint64 datanetId) {
        _checkName(name);
        datanetId = ++_datanetCount;
        _datanets[datanetId] = Datanet({owner: msg.sender, versions: 0, draftList: ++_listCount});
        emit DatanetCreated(datanetId, msg.sender, name);
    }

    /// @inheritdoc IDatanetRegistry
    function contribute(uint64 datanetId, bytes32 root, string calldata licence, string calldata name)
        external
        returns (uint64 contributionId)
    {
        if (_datanets[datanetId].owner == address(0)) revert UnknownDatanet(datanetId);
        if (root == 0) revert EmptyRoot();
        _checkName(name);
        contributionId = ++_contributionCount;
        _contributions[contributionId] = Contribution({
            contributor: msg.sender,
            datanetId: datanetId,
            status: Status.Pending,
            root: root,
            licenceHash: keccak256(bytes(licence)),
            nameHash: keccak256(bytes(name))
        });
        emit Contributed(datanetId, contributionId, msg.sender, root, licence, name);
    }

    /// @inheritdoc IDatanetRegistry
    function approve(uint64 contributionId) external {
        Contribution storage c = _pending(contributionId);
        address holder = nameHolder[c.datanetId][c.nameHash];
        if (holder == address(0)) nameHolder[c.datanetId][c.nameHash] = c.contributor;
        else if (holder != c.contributor) revert NameTaken(c.nameHash, holder);
        c.status = Status.Approved;
        emit Approved(c.datanetId, contributionId);
    }

    /// @inheritdoc IDatanetRegistry
    function reject(uint64 contributionId) external {
        Contribution storage c = _pending(contributionId);
        c.status = Status.Rejected;
        emit Rejected(c.datanetId, contributionId);
    }

    /// @inheritdoc IDatanetRegistry
    function correct(uint64 contributionId) external {
        Contribution storage c = _contributions[contributionId];
        uint64 datanetId = c.datanetId;
        if (_datanets[datanetId].owner != msg.sender) revert NotDatanetOwner(datanetId, msg.sender);
        if (c.status == Status.Rejected) revert UnexpectedStatus(contributionId, Status.Pending, c.status);
        address holder = nameHolder[datanetId][c.nameHash];
        if (holder == address(0) || holder == c.contributor) revert NothingToCorrect(c.nameHash, holder);
        nameHolder[datanetId][c.nameHash] = c.contributor;
        c.status = Status.Approved;
        emit NameCorrected(datanetId, contributionId, holder, c.contributor);
        _discardDraft(datanetId);
    }

    /// @inheritdoc IDatanetRegistry
    function draft(uint64 datanetId, uint64[] calldata contributionIds) external onlyDatanetOwner(datanetId) {
        _draft(datanetId, contributionIds);
    }

    /// @inheritdoc IDatanetRegistry
    function discardDraft(uint64 datanetId) external onlyDatanetOwner(datanetId) {
        _discardDraft(datanetId);
    }

    /// @inheritdoc IDatanetRegistry
    function publish(uint64 datanetId, bytes32 root, string calldata licence, uint64[] calldata contributionIds)
        external
        onlyDatanetOwner(datanetId)
        returns (uint64 number)
    {
        if (root == 0) revert EmptyRoot();
        uint64 listId = _draft(datanetId, contributionIds);
        uint256 count = _lists[listId].accounts.length;
        if (count == 0) revert ContributorCount(count);
        Datanet storage d = _datanets[datanetId];
        number = ++d.versions;
        d.draftList = ++_listCount;
        _versions[datanetId][number] = Version({
            root: root,
            licenceHash: keccak256(bytes(licence)),
            namesDigest: _lists[listId].namesDigest,
            listId: listId,
            contributors: uint32(count),
            publishedAt: uint40(block.timestamp)
        });
        emit Published(datanetId, number, listId, root, licence, uint32(count));
    }

    /// @inheritdoc IDatanetRegistry
    function contribution(uint64 contributionId) external view returns (Contribution memory) {
        return _contributions[contributionId];
    }

    /// @inheritdoc IDatanetRegistry
    function version(uint64 datanetId, uint64 number) external view returns (Version memory) {
        return _version(datanetId, number);
    }

    /// @inheritdoc IDatanetRegistry
    function datanet(uint64 datanetId) external view returns (address owner, uint64 versions) {
        Datanet storage d = _datanets[datanetId];
        return (d.owner, d.versions);
    }

    /// @inheritdoc IDatanetRegistry
    function contributorAt(uint64 listId, uint256 index) external view returns (address) {
        address[] storage accounts = _lists[listId].accounts;
        if (index >= accounts.length) revert UnknownContributor(index);
        return accounts[index];
    }

    /// @inheritdoc IDatanetRegistry
    function contributors(uint64 datanetId, uint64 number) external view returns (address[] memory) {
        return _lists[_version(datanetId, number).listId].accounts;
    }

    /// @inheritdoc IDatanetRegistry
    function namesDigest(string[] calldata names) external pure returns (bytes32 digest) {
        for (uint256 i = 0; i < names.length; ++i) {
            digest = _chain(digest, keccak256(bytes(names[i])));
        }
    }

    function _discardDraft(uint64 datanetId) private {
        emit DraftDiscarded(datanetId, _datanets[datanetId].draftList);
        _datanets[datanetId].draftList = ++_listCount;
    }

    function _draft(uint64 datanetId, uint64[] calldata contributionIds) private returns (uint64 listId) {
        listId = _datanets[datanetId].draftList;
        List storage list = _lists[listId];
        bytes32 digest = list.namesDigest;
        for (uint256 i = 0; i < contributionIds.length; ++i) {
            Contribution storage c = _contributions[contributionIds[i]];
            Status found = c.datanetId == datanetId ? c.status : Status.None;
            if (found != Status.Approved) revert UnexpectedStatus(contributionIds[i], Status.Approved, found);
            bytes32 nameHash = c.nameHash;
            address holder = nameHolder[datanetId][nameHash];
            if (holder != c.contributor) revert NameTaken(nameHash, holder);
            if (_listed[listId][nameHash]) continue;
            _listed[listId][nameHash] = true;
            list.accounts.push(c.contributor);
            digest = _chain(digest, nameHash);
        }
        if (list.accounts.length > MAX_CONTRIBUTORS) revert ContributorCount(list.accounts.length);
        list.namesDigest = digest;
        emit Drafted(datanetId, listId, contributionIds);
    }

    function _pending(uint64 contributionId) private view returns (Contribution storage c) {
        c = _contributions[contributionId];
        if (c.status != Status.Pending) revert UnexpectedStatus(contributionId, Status.Pending, c.status);
        if (_datanets[c.datanetId].owner != msg.sender) revert NotDatanetOwner(c.datanetId, msg.sender);
    }

    function _version(uint64 datanetId, uint64 number) private view returns (Version storage v) {
        v = _versions[datanetId][number];
        if (v.contributors == 0) revert UnknownVersion(datanetId, number);
    }

    function _chain(bytes32 digest, bytes32 nameHash) private pure returns (bytes32) {
        return keccak256(abi.encodePacked(digest, nameHash));
    }

    function _checkName(string calldata name) private pure {
        uint256 length = bytes(name).length;
        if (length == 0 || length > MAX_NAME_LENGTH) revert NameLength(length);
    }
}
