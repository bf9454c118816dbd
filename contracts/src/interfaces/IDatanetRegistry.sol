// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// @title Registry of datanets
/// @notice A datanet is a community dataset. Anyone contributes; its owner approves or rejects, and publishes versions. A published version
/// never changes: its root, licence and ordered list of contributors are what payments rest on.
interface IDatanetRegistry {
    /// @notice What became of a contribution.
    enum Status {
        None,
        Pending,
        Approved,
        Rejected
    }

    /// @notice Samples that one account offers to a datanet.
    /// @param contributor Who is paid for them.
    /// @param datanetId The datanet.
    /// @param status What became of it.
    /// @param root Root of the samples.
    /// @param licenceHash keccak256 of the licence.
    /// @param nameHash keccak256 of the contributor's name in the datanet.
    struct Contribution {
        address contributor;
        uint64 datanetId;
        Status status;
        bytes32 root;
        bytes32 licenceHash;
        bytes32 nameHash;
    }

    /// @notice A published version.
    /// @param root Root of all samples.
    /// @param licenceHash keccak256 of the licence.
    /// @param namesDigest Chain of the contributors' names, see `namesDigest`.
    /// @param listId Where the contributors are kept.
    /// @param contributors How many there are.
    /// @param publishedAt When, in seconds since 1970.
    struct Version {
        bytes32 root;
        bytes32 licenceHash;
        bytes32 namesDigest;
        uint64 listId;
        uint32 contributors;
        uint40 publishedAt;
    }

    event DatanetCreated(uint64 indexed datanetId, address indexed owner, string name);
    event Contributed(
        uint64 indexed datanetId, uint64 indexed contributionId, address indexed contributor, bytes32 root, string licence, string name
    );
    event Approved(uint64 indexed datanetId, uint64 indexed contributionId);
    event Rejected(uint64 indexed datanetId, uint64 indexed contributionId);
    event NameCorrected(uint64 indexed datanetId, uint64 indexed contributionId, address from, address to);
    event Drafted(uint64 indexed datanetId, uint64 indexed listId, uint64[] contributionIds);
    event DraftDiscarded(uint64 indexed datanetId, uint64 indexed listId);
    event Published(uint64 indexed datanetId, uint64 indexed version, uint64 listId, bytes32 root, string licence, uint32 contributors);

    /// @notice The caller doesn't own the datanet.
    error NotDatanetOwner(uint64 datanetId, address caller);
    /// @notice There is no such datanet.
    error UnknownDatanet(uint64 datanetId);
    /// @notice There is no such version.
    error UnknownVersion(uint64 datanetId, uint64 version);
    /// @notice The contribution isn't in the state that the call needs, or belongs to another datanet (then `found` is `None`).
    error UnexpectedStatus(uint64 contributionId, Status expected, Status found);
    /// @notice Names have 1 to 64 bytes.
    error NameLength(uint256 length);
    /// @notice A root is zero.
    error EmptyRoot();
    /// @notice The name belongs to another account in this datanet.
    error NameTaken(bytes32 nameHash, address holder);
    /// @notice Nobody holds the name, or the contribution's account does already.
    error NothingToCorrect(bytes32 nameHash, address holder);
    /// @notice A version needs at least one contributor and at most `MAX_CONTRIBUTORS`.
    error ContributorCount(uint256 count);
    /// @notice There is no contributor with this number.
    error UnknownContributor(uint256 index);

    /// @notice Starts a datanet that the caller owns.
    function create(string calldata name) external returns (uint64 datanetId);

    /// @notice Offers samples. The caller is who will be paid.
    /// @param datanetId The datanet.
    /// @param root Root of the samples.
    /// @param licence Licence they come under.
    /// @param name The contributor's name, as the datanet's files have it.
    function contribute(uint64 datanetId, bytes32 root, string calldata licence, string calldata name)
        external
        returns (uint64 contributionId);

    /// @notice Accepts a pending contribution. The first accepted one under a name gives that name to its account.
    function approve(uint64 contributionId) external;

    /// @notice Turns a pending contribution down.
    function reject(uint64 contributionId) external;

    /// @notice Gives a name that was given to the wrong account to this contribution's, for all versions published from now on; a draft is
    /// discarded. Published versions pay whom they paid.
    function correct(uint64 contributionId) external;

    /// @notice Adds approved contributions to the next version, for versions too long for one transaction.
    function draft(uint64 datanetId, uint64[] calldata contributionIds) external;

    /// @notice Forgets what was drafted.
    function discardDraft(uint64 datanetId) external;

    /// @notice Publishes the next version: what was drafted, then these contributions. Contributors are numbered by first appearance.
    /// @return number Versions are 1, 2, 3, …
    function publish(uint64 datanetId, bytes32 root, string calldata licence, uint64[] calldata contributionIds)
        external
        returns (uint64 number);

    /// @notice A contribution.
    function contribution(uint64 contributionId) external view returns (Contribution memory);

    /// @notice A published version.
    function version(uint64 datanetId, uint64 number) external view returns (Version memory);

    /// @notice Owner and newest version of a datanet.
    function datanet(uint64 datanetId) external view returns (address owner, uint64 versions);

    /// @notice Who holds a name in a datanet; zero if nobody.
    function nameHolder(uint64 datanetId, bytes32 nameHash) external view returns (address);

    /// @notice The account of contributor `index` in the list of a version.
    function contributorAt(uint64 listId, uint256 index) external view returns (address);

    /// @notice All accounts of a version's contributors, in order.
    function contributors(uint64 datanetId, uint64 number) external view returns (address[] memory);

    /// @notice `d_0 = 0, d_{i+1} = keccak256(d_i, keccak256(name_i))`: binds names and order.
    function namesDigest(string[] calldata names) external pure returns (bytes32);
}
