//! The rules that the steward obeys, by name, so that each can be switched off and is then missed.

use crate::base::switches;

switches! {
    /// A rule that can be switched off.
    Rule,
    /// The rules that are switched off.
    RulesOff:
    /// R11: a word against a replica counts for the version that it names. Off: for any.
    R11Version = "r11-version",
    /// R11: a replica whose node lives is accused by two, or by the membership's verdict. Off: one word is enough.
    R11Words = "r11-words",
    /// R16: who is promoted has filled the session that it has now. Off: any session counts.
    R16 = "r16",
    /// R19: an opening says what the store found. Off: what is recorded is taken for that.
    R19 = "r19",
    /// A replica that lacks what it should have is taken out empty. Off: by its stamps, as one that does not answer.
    Empty = "taken-out-empty",
    /// R24: a replica that was taken off the list comes back empty. Who fills it obeys, so this room only names it.
    R24 = "r24",
}
