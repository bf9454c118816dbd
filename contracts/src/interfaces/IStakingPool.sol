// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IAttributionSettlement} from "./IAttributionSettlement.sol";

/// @title Staking pool
/// @notice Stakers of OPEN divide the stakers' share of every settlement in proportion to stake and time: a share is paid out evenly over the
/// days after it is pulled, to whoever stakes then. Who stakes for one block gets one block's part. Stake that is leaving earns nothing and
/// waits out a cooldown.
interface IStakingPool {
    event Staked(address indexed account, uint256 amount);
    event UnstakeStarted(address indexed account, uint256 amount, uint256 readyAt);
    event Unstaked(address indexed account, uint256 amount);
    event Pulled(IAttributionSettlement.Asset indexed asset, uint256 amount, uint256 staked);
    event Claimed(IAttributionSettlement.Asset indexed asset, address indexed account, address to, uint256 amount);

    /// @notice The amount is zero.
    error NoAmount();
    /// @notice The account has less at stake.
    error InsufficientStake(uint256 staked, uint256 asked);
    /// @notice The cooldown isn't over.
    error CoolingDown(uint256 readyAt);
    /// @notice What is paid out while nobody stakes would go to nobody.
    error NoFallback();
    /// @notice There is nothing to claim.
    error NothingToClaim(IAttributionSettlement.Asset asset, address account);
    /// @notice Ether comes from the settlement only.
    error UnexpectedEther(address from);
    /// @notice The receiver refused the ether.
    error TransferFailed(address to);

    /// @notice Stakes OPEN, for which the pool must be approved.
    function stake(uint256 amount) external;

    /// @notice Takes stake out of the pool; a second call before the first is paid out restarts the cooldown for both.
    function startUnstake(uint256 amount) external;

    /// @notice Pays out what has waited long enough.
    function unstake() external returns (uint256 amount);

    /// @notice Pulls the stakers' share from the settlement. Anyone may call; staking and leaving do it first.
    function pull(IAttributionSettlement.Asset asset) external;

    /// @notice Sends the caller's rewards, after pulling.
    function claim(IAttributionSettlement.Asset asset, address to) external returns (uint256 amount);

    /// @notice OPEN that an account has at stake.
    function stakeOf(address account) external view returns (uint256);

    /// @notice OPEN at stake.
    function totalStaked() external view returns (uint256);

    /// @notice What `claim` would send now; what hasn't been pulled begins to count once it is.
    function claimable(IAttributionSettlement.Asset asset, address account) external view returns (uint256);

    /// @notice What is leaving, and when it can be had.
    function leaving(address account) external view returns (uint256 amount, uint256 readyAt);
}
