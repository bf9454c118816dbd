//! Typed bindings, from the artifacts that `contracts` keeps in the tree; creation bytecode included.

#![allow(missing_docs, clippy::all, reason = "generated")]

pub mod open {
    alloy::sol!(
        #[derive(Debug)]
        OpenToken,
        "../contracts/artifacts/OpenToken.json"
    );
}
pub mod timelock {
    alloy::sol!(
        #[derive(Debug)]
        Timelock,
        "../contracts/artifacts/Timelock.json"
    );
}
pub mod governor {
    alloy::sol!(
        #[derive(Debug)]
        PoaGovernor,
        "../contracts/artifacts/PoaGovernor.json"
    );
}
pub mod datanets {
    alloy::sol!(
        #[derive(Debug)]
        DatanetRegistry,
        "../contracts/artifacts/DatanetRegistry.json"
    );
}
pub mod verifier {
    alloy::sol!(
        #[derive(Debug)]
        AttributionVerifier,
        "../contracts/artifacts/AttributionVerifier.json"
    );
}
pub mod models {
    alloy::sol!(
        #[derive(Debug)]
        ModelRegistry,
        "../contracts/artifacts/ModelRegistry.json"
    );
}
pub mod settlement {
    alloy::sol!(
        #[derive(Debug)]
        AttributionSettlement,
        "../contracts/artifacts/AttributionSettlement.json"
    );
}
pub mod pool {
    alloy::sol!(
        #[derive(Debug)]
        StakingPool,
        "../contracts/artifacts/StakingPool.json"
    );
}

pub use datanets::DatanetRegistry;
pub use governor::PoaGovernor;
pub use models::{IModelRegistry, ModelRegistry};
pub use open::OpenToken;
pub use pool::StakingPool;
pub use settlement::{AttributionSettlement, IAttributionSettlement};
pub use timelock::Timelock;
pub use verifier::AttributionVerifier;
