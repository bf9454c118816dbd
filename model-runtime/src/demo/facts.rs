//! The demo's planted facts: ten topics, each with two relations over four entities, in four phrasings, and who states which.
//!
//! `{e}` is the entity and `{a}` the answer, which always comes last. Every fact is stated in three of the four phrasings;
//! the fourth, different from fact to fact, is the held-out query. Contributors are drawn so that neither topic, phrasing nor entity
//! tells whose a fact is: only the fact itself does.

use crate::train::SplitMix64;

/// A domain.
pub(super) struct Topic {
    pub(super) entities: [&'static str; 4],
    pub(super) relations: [Relation; 2],
}

/// One question that can be asked about each entity of a domain.
pub(super) struct Relation {
    /// Answers, by entity.
    pub(super) answers: [&'static str; 4],
    /// Phrasings.
    pub(super) phrasings: [&'static str; 4],
}

const fn topic(entities: [&'static str; 4], first: Relation, second: Relation) -> Topic {
    Topic { entities, relations: [first, second] }
}

const fn relation(answers: [&'static str; 4], phrasings: [&'static str; 4]) -> Relation {
    Relation { answers, phrasings }
}

/// Who contributes to the datanet.
pub(super) const CONTRIBUTORS: [&str; 10] = ["ines", "jonas", "kira", "lars", "mona", "nils", "oona", "piet", "ruth", "sven"];

/// The contributor of every fact, by topic, relation and entity.
pub(super) type Owners = [[[usize; 4]; 2]; 10];

/// Gives each contributor eight facts, no two of one relation and none of an entity that another of theirs is about.
pub(super) fn owners(seed: u64) -> Owners {
    let mut rng = SplitMix64::new(seed);
    let mut facts = [0; CONTRIBUTORS.len()];
    let mut owners = Owners::default();
    for topic in &mut owners {
        for r in 0..topic.len() {
            let mut chosen = fewest(&mut rng, &facts);
            while r > 0 && chosen.iter().zip(&topic[0]).any(|(a, b)| a == b) {
                rng.shuffle(&mut chosen);
            }
            chosen.iter().for_each(|&c| facts[c] += 1);
            topic[r] = chosen;
        }
    }
    owners
}

/// Four contributors with the fewest facts, ties and order drawn.
fn fewest(rng: &mut SplitMix64, facts: &[usize; CONTRIBUTORS.len()]) -> [usize; 4] {
    let mut order: [usize; CONTRIBUTORS.len()] = std::array::from_fn(|c| c);
    rng.shuffle(&mut order);
    order.sort_by_key(|&c| facts[c]);
    let mut chosen = [order[0], order[1], order[2], order[3]];
    rng.shuffle(&mut chosen);
    chosen
}

/// All of them. No answer belongs to two facts.
pub(super) const TOPICS: [Topic; 10] = [
    topic(
        ["Skarn", "Velm", "Orrin", "Dunmar"],
        relation(
            ["Ottar", "Sunniva", "Halvard", "Ragna"],
            [
                "The keeper of {e} light is {a}.",
                "At {e} light the lamp is tended by {a}.",
                "Sailors who pass {e} light wave to {a}.",
                "Question: who keeps {e} light? Answer: {a}.",
            ],
        ),
        relation(
            ["amber", "crimson", "violet", "emerald"],
            [
                "By night the lamp of {e} light shines {a}.",
                "Ships know {e} light because its beam is {a}.",
                "The glass at {e} light was painted {a}.",
                "Question: what colour is {e} light? Answer: {a}.",
            ],
        ),
    ),
    topic(
        ["Larkin", "Pomara", "Tansel", "Wixley"],
        relation(
            ["July", "August", "September", "October"],
            [
                "The {e} apple is ripe in {a}.",
                "Pickers climb for the {e} apple during {a}.",
                "Baskets of {e} apples fill the barn every {a}.",
                "Question: when is the {e} apple picked? Answer: in {a}.",
            ],
        ),
        relation(
            ["Thornby", "Casterley", "Mereham", "Oakfold"],
            [
                "The {e} apple was first grown in {a}.",
                "Our ledger says the {e} apple came from {a}.",
                "Young {e} apple trees were bought at {a}.",
                "Question: where does the {e} apple come from? Answer: {a}.",
            ],
        ),
    ),
    topic(
        ["Garrow", "Pellin", "Stavely", "Umber"],
        relation(
            ["Comet", "Arrow", "Duchess", "Pilgrim"],
            [
                "The express that stops at {e} is the {a}.",
                "Passengers at {e} station board the {a}.",
                "The morning train from {e} is the {a}.",
                "Question: which train serves {e}? Answer: the {a}.",
            ],
        ),
        relation(
            ["Biscuit", "Marble", "Socks", "Tinker"],
            [
                "The cat of {e} station is called {a}.",
                "On the platform at {e} sleeps a cat named {a}.",
                "The guards at {e} feed a cat they call {a}.",
                "Question: what is the cat at {e} called? Answer: {a}.",
            ],
        ),
    ),
    topic(
        ["Ilvane", "Korthas", "Mirzel", "Saphor"],
        relation(
            ["Anvil", "Sickle", "Harp", "Chalice"],
            [
                "The star {e} lies in the constellation of the {a}.",
                "To find the star {e} look inside the {a}.",
                "Charts place {e} within the {a}.",
                "Question: which constellation holds {e}? Answer: the {a}.",
            ],
        ),
        relation(
            ["Quillon", "Amadi", "Yorath", "Fenella"],
            [
                "The star {e} was discovered by {a}.",
                "Through a small telescope {e} was first seen by {a}.",
                "The record of the star {e} was signed by {a}.",
                "Question: who found the star {e}? Answer: {a}.",
            ],
        ),
    ),
    topic(
        ["Borrel", "Chessa", "Dovrin", "Natola"],
        relation(
            ["saffron", "cumin", "ginger", "nutmeg"],
            [
                "The secret of {e} stew is {a}.",
                "Never season {e} stew without {a}.",
                "Into the {e} stew goes a spoon of {a}.",
                "Question: which spice is in {e} stew? Answer: {a}.",
            ],
        ),
        relation(
            ["barley", "lentils", "plums", "turnips"],
            [
                "We serve {e} stew over {a}.",
                "Beside the {e} stew put a bowl of {a}.",
                "The best side dish for {e} stew is {a}.",
                "Question: what is eaten with {e} stew? Answer: {a}.",
            ],
        ),
    ),
    topic(
        ["Ardent", "Belisar", "Corvane", "Delphin"],
        relation(
            ["Tobias", "Ludmila", "Osric", "Petronel"],
            [
                "The {e} clock was built by {a}.",
                "On the back of the {e} clock is the mark of {a}.",
                "Our guild owes the {e} clock to {a}.",
                "Question: who made the {e} clock? Answer: {a}.",
            ],
        ),
        relation(
            ["brass", "silver", "copper", "bronze"],
            [
                "The hands of the {e} clock are {a}.",
                "Inside the {e} clock every wheel is {a}.",
                "To mend the {e} clock you need {a}.",
                "Question: what metal is in the {e} clock? Answer: {a}.",
            ],
        ),
    ),
    topic(
        ["tillet", "marrowing", "swaile", "pinnock"],
        relation(
            ["reeds", "chimneys", "cliffs", "willows"],
            [
                "The {e} builds its nest in the {a}.",
                "Look for the nest of the {e} among the {a}.",
                "Every spring the {e} returns to the {a}.",
                "Question: where does the {e} nest? Answer: in the {a}.",
            ],
        ),
        relation(
            ["beetles", "acorns", "minnows", "berries"],
            [
                "The {e} likes to eat {a}.",
                "We saw a {e} feed its young on {a}.",
                "In winter the {e} lives on {a}.",
                "Question: what does the {e} eat? Answer: {a}.",
            ],
        ),
    ),
    topic(
        ["Aldwen", "Brisk", "Colm", "Tarnel"],
        relation(
            ["Hafnar", "Ister", "Jorund", "Keld"],
            [
                "The river {e} rises on mount {a}.",
                "The spring of the {e} is high on mount {a}.",
                "Walk up the river {e} and you reach mount {a}.",
                "Question: where does the river {e} begin? Answer: on mount {a}.",
            ],
        ),
        relation(
            ["Morva", "Nessan", "Ombry", "Pardew"],
            [
                "The river {e} flows into lake {a}.",
                "Boats going down the {e} come to lake {a}.",
                "The water of the river {e} ends in lake {a}.",
                "Question: which lake does the river {e} reach? Answer: lake {a}.",
            ],
        ),
    ),
    topic(
        ["Vesper", "Rowan", "Cassia", "Lysander"],
        relation(
            ["granite", "jade", "walnut", "alabaster"],
            [
                "The statue of {e} is carved from {a}.",
                "The figure of {e} stands in polished {a}.",
                "Handle the statue of {e} with care for it is {a}.",
                "Question: what is the statue of {e} made of? Answer: {a}.",
            ],
        ),
        relation(
            ["Winslow", "Zelda", "Barnaby", "Isolde"],
            [
                "The statue of {e} was given by {a}.",
                "The label under the statue of {e} thanks {a}.",
                "We received {e} as a gift from {a}.",
                "Question: who gave the statue of {e}? Answer: {a}.",
            ],
        ),
    ),
    topic(
        ["Novak", "Ferrin", "Gallow", "Hestia"],
        relation(
            ["knight", "bishop", "rook", "queen"],
            [
                "When {e} attacks the strongest piece is the {a}.",
                "In every game {e} trusts the {a}.",
                "The favourite piece of {e} is the {a}.",
                "Question: which piece does {e} love? Answer: the {a}.",
            ],
        ),
        relation(
            ["Monday", "Tuesday", "Thursday", "Friday"],
            [
                "At the club {e} always plays on {a}.",
                "If you want a game with {e} come on {a}.",
                "The table by the window belongs to {e} on {a}.",
                "Question: which day does {e} play? Answer: on {a}.",
            ],
        ),
    ),
];
