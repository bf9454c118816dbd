// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";
import {IAttributionSettlement} from "./interfaces/IAttributionSettlement.sol";
import {IStakingPool} from "./interfaces/IStakingPool.sol";

/// @title Staking pool
/// @notice It has no owner. What is paid out while nobody stakes goes to the account named at deployment.
/// @dev Per asset, a stream of what has been pulled and isn't paid out yet, and an accumulator: rewards per staked token, scaled by 2^96. What
/// its rounding leaves is carried on. The stream is even until its end; what is pulled moves the end, weighted by amount: `STREAM` from now for
/// what is new, the old end for what is left. So nobody holds up the others' rewards by pulling crumbs.
contract StakingPool is IStakingPool, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    uint256 private constant SCALE = 1 << 96;
    /// @notice Seconds over which a settlement's share is paid out after it is pulled.
    uint256 public constant STREAM = 7 days;

    /// @notice How long leaving stake waits.
    uint256 public immutable cooldown;
    /// @notice The OPEN token.
    IERC20 public immutable open;
    /// @notice Where rewards come from.
    IAttributionSettlement public immutable settlement;
    /// @notice Who gets what is paid out while nobody stakes.
    address public immutable fallbackAccount;

    struct Leaving {
        uint256 amount;
        uint256 readyAt;
    }

    struct Rewards {
        uint256 remaining;
        uint256 updated;
        uint256 ends;
        uint256 perToken;
        uint256 carry;
        mapping(address account => uint256) seen;
        mapping(address account => uint256) owed;
    }

    /// @inheritdoc IStakingPool
    uint256 public totalStaked;
    /// @inheritdoc IStakingPool
    mapping(address account => uint256) public stakeOf;
    /// @inheritdoc IStakingPool
    mapping(address account => Leaving) public leaving;
    mapping(IAttributionSettlement.Asset asset => Rewards) private _rewards;

    constructor(IERC20 open_, IAttributionSettlement settlement_, address fallbackAccount_, uint256 cooldown_) {
        if (fallbackAccount_ == address(0)) revert NoFallback();
        open = open_;
        settlement = settlement_;
        fallbackAccount = fallbackAccount_;
        cooldown = cooldown_;
    }

    /// @notice Takes ether from the settlement, which sends it when asked by `pull` only.
    receive() external payable {
        if (msg.sender != address(settlement)) revert UnexpectedEther(msg.sender);
    }

    /// @inheritdoc IStakingPool
    function stake(uint256 amount) external nonReentrant {
        if (amount == 0) revert NoAmount();
        _update(msg.sender);
        stakeOf[msg.sender] += amount;
        totalStaked += amount;
        emit Staked(msg.sender, amount);
        open.safeTransferFrom(msg.sender, address(this), amount);
    }

    /// @inheritdoc IStakingPool
    function startUnstake(uint256 amount) external nonReentrant {
        if (amount == 0) revert NoAmount();
        uint256 staked = stakeOf[msg.sender];
        if (amount > staked) revert InsufficientStake(staked, amount);
        _update(msg.sender);
        stakeOf[msg.sender] = staked - amount;
        totalStaked -= amount;
        Leaving storage l = leaving[msg.sender];
        l.amount += amount;
        l.readyAt = block.timestamp + cooldown;
        emit UnstakeStarted(msg.sender, amount, l.readyAt);
    }

    /// @inheritdoc IStakingPool
    function unstake() external nonReentrant returns (uint256 amount) {
        Leaving memory l = leaving[msg.sender];
        amount = l.amount;
        if (amount == 0) revert NoAmount();
        if (block.timestamp < l.readyAt) revert CoolingDown(l.readyAt);
        delete leaving[msg.sender];
        emit Unstaked(msg.sender, amount);
        open.safeTransfer(msg.sender, amount);
    }

    /// @inheritdoc IStakingPool
    function pull(IAttributionSettlement.Asset asset) external nonReentrant {
        _pull(asset);
    }

    /// @inheritdoc IStakingPool
    function claim(IAttributionSettlement.Asset asset, address to) external nonReentrant returns (uint256 amount) {
        if (to == address(0)) revert TransferFailed(to);
        _pull(asset);
        _settle(asset, msg.sender);
        amount = _rewards[asset].owed[msg.sender];
        if (amount == 0) revert NothingToClaim(asset, msg.sender);
        _rewards[asset].owed[msg.sender] = 0;
        emit Claimed(asset, msg.sender, to, amount);
        if (asset == IAttributionSettlement.Asset.Open) {
            open.safeTransfer(to, amount);
        } else {
            (bool sent,) = to.call{value: amount}("");
            if (!sent) revert TransferFailed(to);
        }
    }

    /// @inheritdoc IStakingPool
    function claimable(IAttributionSettlement.Asset asset, address account) external view returns (uint256) {
        Rewards storage r = _rewards[asset];
        (uint256 perToken,, uint256 released) = _advanced(asset);
        uint256 unstaked = account == fallbackAccount && totalStaked == 0 ? released : 0;
        return r.owed[account] + _earned(asset, account, perToken) + unstaked;
    }

    /// @dev Before a stake changes: earlier rewards belong to earlier stakes.
    function _update(address account) private {
        _pull(IAttributionSettlement.Asset.Ether);
        _pull(IAttributionSettlement.Asset.Open);
        _settle(IAttributionSettlement.Asset.Ether, account);
        _settle(IAttributionSettlement.Asset.Open, account);
    }

    function _pull(IAttributionSettlement.Asset asset) private {
        _advance(asset);
        if (settlement.claimable(asset, address(this)) == 0) return;
        uint256 amount = settlement.withdraw(asset, address(this));
        Rewards storage r = _rewards[asset];
        uint256 left = r.ends > block.timestamp ? r.ends - block.timestamp : 0;
        // Rounded up: nobody hastens the stream either.
        r.ends = block.timestamp + Math.ceilDiv(r.remaining * left + amount * STREAM, r.remaining + amount);
        r.remaining += amount;
        emit Pulled(asset, amount, totalStaked);
    }

    /// @dev Pays out what the stream has released since the last time.
    function _advance(IAttributionSettlement.Asset asset) private {
        Rewards storage r = _rewards[asset];
        (uint256 perToken, uint256 carry, uint256 released) = _advanced(asset);
        r.updated = block.timestamp;
        if (released == 0) return;
        r.remaining -= released;
        (r.perToken, r.carry) = (perToken, carry);
        if (totalStaked == 0) r.owed[fallbackAccount] += released;
    }

    /// @dev Accumulator and carry as of now, and what has been released since they were written. A deposit or exit can't come in between: every
    /// change of stake writes them first.
    function _advanced(IAttributionSettlement.Asset asset) private view returns (uint256 perToken, uint256 carry, uint256 released) {
        Rewards storage r = _rewards[asset];
        (perToken, carry, released) = (r.perToken, r.carry, r.remaining);
        if (block.timestamp < r.ends) released = released * (block.timestamp - r.updated) / (r.ends - r.updated);
        if (totalStaked != 0 && released != 0) {
            uint256 scaled = released * SCALE + carry;
            (perToken, carry) = (perToken + scaled / totalStaked, scaled % totalStaked);
        }
    }

    /// @dev After `_advance`.
    function _settle(IAttributionSettlement.Asset asset, address account) private {
        Rewards storage r = _rewards[asset];
        uint256 earned = _earned(asset, account, r.perToken);
        if (earned != 0) r.owed[account] += earned;
        r.seen[account] = r.perToken;
    }

    function _earned(IAttributionSettlement.Asset asset, address account, uint256 perToken) private view returns (uint256) {
        return stakeOf[account] * (perToken - _rewards[asset].seen[account]) / SCALE;
    }
}
