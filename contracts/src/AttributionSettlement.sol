// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {MerkleProof} from "@openzeppelin/contracts/utils/cryptography/MerkleProof.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {SafeCast} from "@openzeppelin/contracts/utils/math/SafeCast.sol";
import {BitMaps} from "@openzeppelin/contracts/utils/structs/BitMaps.sol";
import {IAttributionSettlement} from "./interfaces/IAttributionSettlement.sol";
import {IAttributionVerifier} from "./interfaces/IAttributionVerifier.sol";
import {IModelRegistry} from "./interfaces/IModelRegistry.sol";
import {CodeStore} from "./libraries/CodeStore.sol";
import {INPUTS, PublicInputs} from "./libraries/PublicInputs.sol";
import {Scalar} from "./libraries/Scalar.sol";
import {WeightTree} from "./libraries/WeightTree.sol";

/// @title Settlement of attribution proofs
/// @notice The owner is the timelock. It chooses the split of future requests and can pause; it has no way to move escrowed or credited money.
/// @dev Money leaves through `withdraw` only, from the caller's own credit. Credits are made by `settle` and `refund`, of which each request
/// sees one, once, and by `collect`, once per request and contributor, out of what `settle` set aside.
///
/// Settling never writes an empty slot: the accounts it credits are opened before, the platform's and the stakers' with their split, the model
/// owner's with a request of theirs. The first settlement of a chain thus costs what every other does.
contract AttributionSettlement is IAttributionSettlement, Ownable, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;
    using BitMaps for BitMaps.BitMap;

    /// @notice Shares are in parts of this.
    uint256 public constant BASIS_POINTS = 10_000;
    /// @notice Proving takes minutes: nobody can escrow with a deadline that no provider could meet.
    uint256 public constant MIN_WINDOW = 10 minutes;
    /// @notice Nobody locks their fee for longer.
    uint256 public constant MAX_WINDOW = 90 days;
    /// @notice Longest pause by governance.
    uint256 public constant MAX_PAUSE = 30 days;
    /// @notice Longest pause by the guardian.
    uint256 public constant GUARDIAN_PAUSE = 7 days;

    /// @notice The `binding` of a request that accepts any prompt; no scalar is as large.
    bytes32 public constant ANY_PROMPT = bytes32(type(uint256).max);

    /// @dev The newest pause.
    /// @param start When it began.
    /// @param until When it ends or ended.
    /// @param earlier Seconds of all pauses before it.
    struct Pause {
        uint40 start;
        uint40 until;
        uint40 earlier;
    }

    /// @notice The OPEN token.
    IERC20 public immutable open;
    /// @notice Where models are registered.
    IModelRegistry public immutable models;

    /// @inheritdoc IAttributionSettlement
    uint32 public currentSplit;
    /// @notice Who may pause in an emergency.
    address public guardian;
    Pause private _pause;

    /// @inheritdoc IAttributionSettlement
    mapping(address payer => uint256) public nonces;

    /// @dev Credit plus one; zero if the account has never been opened.
    mapping(Asset asset => mapping(address account => uint256)) private _accounts;
    mapping(uint32 splitId => Split) private _splits;
    /// @dev Deadlines in here are on a clock that stands still while settling is paused: the time of day less `_pausedTime`.
    mapping(bytes32 requestId => Request) private _requests;
    mapping(bytes32 requestId => uint256) private _tokenDigests;
    mapping(bytes32 requestId => address) private _settlers;
    mapping(bytes32 requestId => BitMaps.BitMap) private _collected;

    modifier whenNotPaused() {
        if (block.timestamp < _pause.until) revert IsPaused(_pause.until);
        _;
    }

    constructor(IERC20 open_, IModelRegistry models_, Split memory split_, address owner_) Ownable(owner_) {
        open = open_;
        models = models_;
        _setSplit(split_);
    }

    // ------------------------------------------------------------------ requests

    /// @inheritdoc IAttributionSettlement
    function escrow(Terms calldata terms) external payable nonReentrant whenNotPaused returns (bytes32 requestId) {
        _checkTerms(terms);
        address payee = _checkService(terms);
        uint256 nonce = nonces[msg.sender]++;
        requestId = _requestId(msg.sender, nonce, terms);
        Request storage r = _requests[requestId];
        if (r.status != Status.None) revert UnexpectedStatus(requestId, Status.None, r.status);
        r.payer = msg.sender;
        r.deadline = uint40(terms.deadline - _pausedTime());
        r.splitId = terms.splitId;
        r.asset = terms.asset;
        r.amount = terms.amount;
        r.modelId = terms.modelId;
        r.status = Status.Escrowed;
        r.verifier = terms.verifier;
        r.binding = terms.promptDigest == 0 ? ANY_PROMPT : bytes32(terms.promptDigest);
        if (terms.tokenDigest != 0) (r.bindsTokens, _tokenDigests[requestId]) = (true, terms.tokenDigest);
        if (terms.settler != address(0)) (r.namesSettler, _settlers[requestId]) = (true, terms.settler);
        _open(terms.asset, payee);
        emit Escrowed(requestId, msg.sender, terms.modelId, nonce, terms.verifier, terms);
        if (terms.asset == Asset.Open) open.safeTransferFrom(msg.sender, address(this), terms.amount);
    }

    /// @inheritdoc IAttributionSettlement
    function settle(bytes32 requestId, Digests calldata digests, uint256[] calldata weights, bytes calldata proof)
        external
        nonReentrant
        whenNotPaused
    {
        Request memory r = _escrowed(requestId);
        if (block.timestamp > r.deadline) revert DeadlinePassed(requestId, r.deadline);
        _checkConditions(requestId, r, digests);
        IModelRegistry.Claim memory m = _claim(r.modelId);
        (uint256[INPUTS] memory inputs, uint256 total) = _inputs(m, requestId, digests, weights);
        if (!IAttributionVerifier(r.verifier).verify(inputs, proof)) revert InvalidProof(requestId);

        Request storage stored = _requests[requestId];
        stored.status = Status.Settled;
        if (total != 0) {
            stored.totalWeight = SafeCast.toUint56(total);
            stored.binding = WeightTree.root(WeightTree.leaves(requestId, weights));
        }
        emit Settled(requestId, r.modelId, r.verifier, inputs, weights, proof);
        _distribute(r, m.payee, weights, total);
    }

    /// @inheritdoc IAttributionSettlement
    function refund(bytes32 requestId) external {
        Request memory r = _escrowed(requestId);
        if (block.timestamp <= r.deadline) revert DeadlineNotPassed(requestId, r.deadline);
        _requests[requestId].status = Status.Refunded;
        _credit(r.asset, r.payer, r.amount);
        emit Refunded(requestId, r.payer, r.asset, r.amount);
    }

    // ------------------------------------------------------------------ payments

    /// @inheritdoc IAttributionSettlement
    function collect(Collection[] calldata collections) external {
        for (uint256 i = 0; i < collections.length; ++i) {
            _collect(collections[i]);
        }
    }

    /// @inheritdoc IAttributionSettlement
    function withdraw(Asset asset, address to) external nonReentrant returns (uint256 amount) {
        if (to == address(0)) revert TransferFailed(to);
        amount = claimable(asset, msg.sender);
        if (amount == 0) revert NothingToWithdraw(asset, msg.sender);
        _accounts[asset][msg.sender] = 1;
        emit Withdrawn(asset, msg.sender, to, amount);
        if (asset == Asset.Open) {
            open.safeTransfer(to, amount);
        } else {
            (bool sent,) = to.call{value: amount}("");
            if (!sent) revert TransferFailed(to);
        }
    }

    // ------------------------------------------------------------------ governance

    /// @inheritdoc IAttributionSettlement
    function setSplit(Split calldata next) external onlyOwner returns (uint32 splitId) {
        return _setSplit(next);
    }

    /// @inheritdoc IAttributionSettlement
    function setGuardian(address guardian_) external onlyOwner {
        guardian = guardian_;
        emit GuardianSet(guardian_);
    }

    /// @inheritdoc IAttributionSettlement
    function pause(uint256 duration) external {
        uint256 until = block.timestamp + SafeCast.toUint40(duration);
        Pause memory p = _pause;
        if (block.timestamp < p.until) {
            if (msg.sender != owner() || until > p.start + MAX_PAUSE) revert PauseRefused(msg.sender);
            _pause.until = SafeCast.toUint40(until);
        } else {
            uint256 length = p.until - p.start;
            bool allowed = msg.sender == owner() ? duration <= MAX_PAUSE : msg.sender == guardian && duration <= GUARDIAN_PAUSE;
            if (!allowed || block.timestamp < p.until + length) revert PauseRefused(msg.sender);
            _pause = Pause(uint40(block.timestamp), SafeCast.toUint40(until), uint40(p.earlier + length));
        }
        emit Paused(msg.sender, until);
    }

    /// @inheritdoc IAttributionSettlement
    function unpause() external onlyOwner {
        if (block.timestamp >= _pause.until) return;
        _pause.until = uint40(block.timestamp);
        emit Unpaused(msg.sender);
    }

    // ------------------------------------------------------------------ views

    /// @inheritdoc IAttributionSettlement
    function pausedUntil() external view returns (uint256) {
        return _pause.until;
    }

    /// @inheritdoc IAttributionSettlement
    function request(bytes32 requestId) public view returns (Request memory r) {
        r = _requests[requestId];
        if (r.status != Status.None) r.deadline = uint40(r.deadline + _pausedTime());
    }

    /// @inheritdoc IAttributionSettlement
    function split(uint32 splitId) external view returns (Split memory) {
        return _splits[splitId];
    }

    /// @inheritdoc IAttributionSettlement
    function claimable(Asset asset, address account) public view returns (uint256) {
        uint256 kept = _accounts[asset][account];
        return kept == 0 ? 0 : kept - 1;
    }

    /// @inheritdoc IAttributionSettlement
    function collected(bytes32 requestId, uint256 index) external view returns (bool) {
        return _collected[requestId].get(index);
    }

    /// @inheritdoc IAttributionSettlement
    function nextRequestId(address payer, Terms calldata terms) external view returns (bytes32) {
        return _requestId(payer, nonces[payer], terms);
    }

    /// @inheritdoc IAttributionSettlement
    function publicInputs(bytes32 requestId, Digests calldata digests, uint256[] calldata weights)
        external
        view
        returns (uint256[INPUTS] memory inputs)
    {
        (inputs,) = _inputs(_claim(_requests[requestId].modelId), requestId, digests, weights);
    }

    /// @inheritdoc IAttributionSettlement
    function preview(bytes32 requestId, uint256[] calldata weights)
        external
        view
        returns (Distribution memory distribution, address[] memory contributors, uint256[] memory amounts)
    {
        Request memory r = _requests[requestId];
        IModelRegistry.Claim memory m = _claim(r.modelId);
        if (weights.length != m.contributors) revert WeightCount(m.contributors, weights.length);
        uint256 total = PublicInputs.totalOf(weights);
        uint256 pot;
        (distribution, pot) = _shares(r, weights, total);
        contributors = models.contributorsOf(r.modelId);
        amounts = new uint256[](weights.length);
        for (uint256 i = 0; i < weights.length && total != 0; ++i) {
            amounts[i] = pot * weights[i] / total;
        }
    }

    /// @inheritdoc IAttributionSettlement
    function weightPath(bytes32 requestId, uint256[] calldata weights, uint256 index)
        external
        pure
        returns (uint256[] memory group, bytes32[] memory path)
    {
        group = WeightTree.groupOf(weights, index);
        path = WeightTree.path(WeightTree.leaves(requestId, weights), index / WeightTree.GROUP);
    }

    // ------------------------------------------------------------------ parts of the above

    function _checkTerms(Terms calldata terms) private view {
        if (terms.splitId != currentSplit) revert StaleSplit(currentSplit, terms.splitId);
        if (terms.amount == 0) revert NoFee();
        if (!Scalar.isCanonical(terms.promptDigest)) revert NotAScalar(terms.promptDigest);
        if (!Scalar.isCanonical(terms.tokenDigest)) revert NotAScalar(terms.tokenDigest);
        uint256 ether_ = terms.asset == Asset.Ether ? terms.amount : 0;
        if (msg.value != ether_) revert EtherAmount(ether_, msg.value);
        uint256 earliest = block.timestamp + MIN_WINDOW;
        uint256 latest = block.timestamp + MAX_WINDOW;
        if (terms.deadline < earliest || terms.deadline > latest) {
            revert DeadlineOutOfRange(earliest, latest, terms.deadline);
        }
    }

    /// @dev Whoever decides about verifiers can't slip another one under a request: the terms name the one that the payer has looked at.
    function _checkService(Terms calldata terms) private view returns (address payee) {
        IAttributionVerifier found;
        (found, payee) = models.serviceOf(terms.modelId);
        bytes32 key = found.keyDigest();
        if (address(found) != terms.verifier || key != terms.verifierKey) {
            revert VerifierDiffers(terms.verifier, terms.verifierKey, address(found), key);
        }
    }

    /// @dev Whether this is what the payer asked for, by whom.
    function _checkConditions(bytes32 requestId, Request memory r, Digests calldata digests) private view {
        if (r.binding != ANY_PROMPT && uint256(r.binding) != digests.prompt) {
            revert PromptDigestMismatch(uint256(r.binding), digests.prompt);
        }
        if (r.bindsTokens && _tokenDigests[requestId] != digests.tokens) {
            revert TokenDigestMismatch(_tokenDigests[requestId], digests.tokens);
        }
        if (r.namesSettler && _settlers[requestId] != msg.sender) revert NotSettler(requestId, _settlers[requestId], msg.sender);
    }

    /// @dev Seconds for which settling has been paused, ever. It grows during a pause and only then.
    function _pausedTime() private view returns (uint256) {
        Pause memory p = _pause;
        return p.earlier + Math.min(block.timestamp, p.until) - p.start;
    }

    /// @dev Names the chain, this contract, the payer and every term: a proof for it serves nothing else, a reorganisation can't change what
    /// it stands for. Virtual for tests with recorded proofs.
    function _requestId(address payer, uint256 nonce, Terms calldata terms) internal view virtual returns (bytes32) {
        bytes32 digest = keccak256(abi.encode(block.chainid, address(this), payer, nonce, terms));
        return bytes32(Scalar.fromDigest(digest));
    }

    function _escrowed(bytes32 requestId) private view returns (Request memory r) {
        r = request(requestId);
        if (r.status != Status.Escrowed) revert UnexpectedStatus(requestId, Status.Escrowed, r.status);
    }

    /// @dev `models.claimOf`, read from where the registry keeps it.
    function _claim(uint64 modelId) private view returns (IModelRegistry.Claim memory) {
        return abi.decode(CodeStore.read(CodeStore.placeOf(address(models), modelId)), (IModelRegistry.Claim));
    }

    /// @dev What the proof must be about. Only the statement's digest comes from the caller and, where the payer left them open, the others.
    function _inputs(IModelRegistry.Claim memory m, bytes32 requestId, Digests calldata digests, uint256[] calldata weights)
        private
        pure
        returns (uint256[INPUTS] memory inputs, uint256 total)
    {
        if (weights.length != m.contributors) revert WeightCount(m.contributors, weights.length);
        inputs[PublicInputs.STATEMENT_DIGEST] = digests.statement;
        inputs[PublicInputs.BASE] = uint256(m.base);
        inputs[PublicInputs.ADAPTER] = uint256(m.adapter);
        inputs[PublicInputs.INDEX] = uint256(m.index);
        inputs[PublicInputs.INDEX_DIGEST] = m.indexDigest;
        inputs[PublicInputs.REQUEST_ID] = uint256(requestId);
        inputs[PublicInputs.PROMPT_DIGEST] = digests.prompt;
        inputs[PublicInputs.TOKEN_DIGEST] = digests.tokens;
        total = PublicInputs.bindWeights(inputs, weights);
    }

    function _distribute(Request memory r, address modelOwner, uint256[] calldata weights, uint256 total) private {
        (Distribution memory d,) = _shares(r, weights, total);
        Split storage s = _splits[r.splitId];
        _credit(r.asset, s.platform, d.platform + d.dust);
        _credit(r.asset, modelOwner, d.modelOwner);
        _credit(r.asset, s.stakers, d.stakers);
        _credit(r.asset, r.payer, d.returned);
    }

    /// @dev Every share is rounded down; dust is what is left of the fee. Products stay below 2^128·2^31 and 2^128·10,000.
    function _shares(Request memory r, uint256[] calldata weights, uint256 total)
        private
        view
        returns (Distribution memory d, uint256 pot)
    {
        Split memory s = _splits[r.splitId];
        d.platform = _part(r.amount, s.platformBps);
        d.modelOwner = _part(r.amount, s.modelOwnerBps);
        d.stakers = _part(r.amount, s.stakersBps);
        pot = _part(r.amount, s.contributorsBps);
        if (total == 0) {
            d.returned = pot;
        } else {
            d.contributors = _sumOfParts(pot, weights, total);
        }
        d.dust = r.amount - d.platform - d.modelOwner - d.stakers - d.contributors - d.returned;
    }

    /// @dev `Σ ⌊pot · weights[i] / total⌋`; nothing overflows, as above, once the weights are known to be in range and `total` to be their sum.
    function _sumOfParts(uint256 pot, uint256[] calldata weights, uint256 total) private pure returns (uint256 sum) {
        assembly ("memory-safe") {
            let end := add(weights.offset, shl(5, weights.length))
            for { let at := weights.offset } lt(at, end) { at := add(at, 32) } {
                sum := add(sum, div(mul(pot, calldataload(at)), total))
            }
        }
    }

    function _collect(Collection calldata c) private {
        Request storage r = _requests[c.requestId];
        if (r.status != Status.Settled) revert UnexpectedStatus(c.requestId, Status.Settled, r.status);
        (uint256 group, uint256 place) = (c.index / WeightTree.GROUP, c.index % WeightTree.GROUP);
        bytes32 leaf = WeightTree.leaf(c.requestId, group, c.weights);
        if (r.totalWeight == 0 || place >= c.weights.length || !MerkleProof.verifyCalldata(c.path, r.binding, leaf)) {
            revert InvalidPath(c.requestId, c.index);
        }
        if (_collected[c.requestId].get(c.index)) revert AlreadyCollected(c.requestId, c.index);
        _collected[c.requestId].set(c.index);
        uint256 amount = _part(r.amount, _splits[r.splitId].contributorsBps) * c.weights[place] / r.totalWeight;
        address contributor = models.contributorAt(r.modelId, c.index);
        _credit(r.asset, contributor, amount);
        emit Collected(c.requestId, c.index, contributor, amount);
    }

    function _credit(Asset asset, address account, uint256 amount) private {
        if (amount == 0) return;
        uint256 kept = _accounts[asset][account];
        _accounts[asset][account] = (kept == 0 ? 1 : kept) + amount;
    }

    function _open(Asset asset, address account) private {
        if (_accounts[asset][account] == 0) _accounts[asset][account] = 1;
    }

    function _setSplit(Split memory s) private returns (uint32 splitId) {
        uint256 sum = uint256(s.platformBps) + s.modelOwnerBps + s.stakersBps + s.contributorsBps;
        // The platform gets dust whatever its share.
        bool unpaid = s.platform == address(0) || (s.stakersBps != 0 && s.stakers == address(0));
        if (sum != BASIS_POINTS || unpaid) revert InvalidSplit();
        splitId = ++currentSplit;
        _splits[splitId] = s;
        for (uint256 i = 0; i < 2; ++i) {
            _open(Asset(i), s.platform);
            if (s.stakersBps != 0) _open(Asset(i), s.stakers);
        }
        emit SplitSet(splitId, s);
    }

    function _part(uint256 amount, uint256 bps) private pure returns (uint256) {
        return amount * bps / BASIS_POINTS;
    }
}
