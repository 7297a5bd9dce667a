//! What the server says when it does not send its log.

/// Why the server does not send its log.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// Somebody else reads it under our number.
    Clash,
    /// What must come next was purged.
    Gone,
    /// It is not the log that was read.
    PutBack,
    Other,
}

/// All of it is error 1236; only the words differ.
pub(super) fn reason(message: &str) -> Reason {
    let message = message.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|words| message.contains(words));
    if says(&["same server_uuid", "same server_id", "same server id"]) {
        Reason::Clash
    } else if says(&[
        "impossible position",
        "position > file size",
        "diverged",
        "more gtids than",
        "not in the master's binlog",
    ]) {
        Reason::PutBack
    } else if says(&["could not find first log", "purged", "has been purged", "could not find gtid state"]) {
        Reason::Gone
    } else {
        Reason::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_words_are_understood() {
        let says = [
            ("A slave with the same server_uuid/server_id as this slave has connected to the master", Reason::Clash),
            (
                "A replica with the same server_uuid/server_id as this replica has connected to the source",
                Reason::Clash,
            ),
            ("A slave with the same server_uuid/server_id is already connected; the first event", Reason::Clash),
            ("Could not find first log file name in binary log index file", Reason::Gone),
            ("Cannot replicate because the source purged required binary logs.", Reason::Gone),
            ("Client requested source to start replication from position > file size", Reason::PutBack),
            (
                "Error: connecting slave requested to start from GTID 0-1-9, which is not in the master's binlog",
                Reason::PutBack,
            ),
            ("log event entry exceeded max_allowed_packet", Reason::Other),
        ];
        for (message, expected) in says {
            assert_eq!(reason(message), expected, "{message}");
        }
    }
}
