//! The cases, in each warehouse.

use super::cases::*;
use super::*;

mod on_sqlite {
    use super::Under;

    #[tokio::test(flavor = "multi_thread")]
    async fn every_type_is_kept_exactly() {
        let shown = super::every_type_is_kept_exactly(Under::sqlite().await).await;
        insta::assert_snapshot!(shown, @r##"
            yes: 1 | 0 | ∅ | ∅
            small: -32768 | 32767 | 0 | ∅
            big: -9223372036854775808 | 9223372036854775807 | 0 | ∅
            f4: NaN | Inf | 0.100000001490116 | ∅
            f8: NaN | -Inf | 0.1 | ∅
            dec: 9999999999999999999999999999.9999999999 | -0.0000000001 | 0.0000000000 | ∅
            wide: 9999999999999999999999999999999999999999999999999999999999999999999999999999 | -9999999999999999999999999999999999999999999999999999999999999999999999999999 | 10000 | ∅
            num: -12345678901234567890.0123450 | NaN | 0.0001 | ∅
            day: 1970-01-01 | -0043-03-15 | 9999-12-31 | ∅
            clock: 00:00:00.000000 | 23:59:59.999999 | 24:00:00.000000 | ∅
            span: 0 | -90061000001 | 3600000000000 | ∅
            ts: 1970-01-01T00:00:00.000000 | 1969-12-31T23:59:59.999999 | 3970-01-01T00:00:00.000000 | ∅
            tstz: 1970-01-01T00:00:00.000000Z | 1969-12-31T23:59:59.999999Z | 3970-01-01T00:00:00.000000Z | ∅
            word:  | it\'s \"quoted\" \\N \t\n | 日本 🎉 | ∅
            short:  | 12345678 | 日本 | ∅
            raw:  | 00FF | 616263 | ∅
            doc: {\"b\":1,  \"a\":[1.0,null]} | null | \"\\u0000\" | ∅
            uid: 00000000-0000-0000-0000-000000000000 | ffffffff-ffff-ffff-ffff-ffffffffffff | 123e4567-e89b-12d3-a456-426614174000 | ∅
            or"der: x | ∅ |  | ∅
            "##);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nul_in_text() {
        super::nul_in_text(Under::sqlite().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_table_that_is_gone_is_not_made_again_in_silence() {
        super::a_table_that_is_gone_is_not_made_again_in_silence(Under::sqlite().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn keys_move_and_swap() {
        super::keys_move_and_swap(Under::sqlite().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn incomplete_rows_are_kept_apart() {
        super::incomplete_rows_are_kept_apart(Under::sqlite().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_becomes_whole_is_not_incomplete_any_more() {
        super::what_becomes_whole_is_not_incomplete_any_more(Under::sqlite().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn partial_moves_come_again() {
        super::partial_moves_come_again(Under::sqlite().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn tombstones_outlive_rows() {
        super::tombstones_outlive_rows(Under::sqlite().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn two_loaders_race() {
        super::two_loaders_race(Under::sqlite().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn another_log_is_refused() {
        super::another_log_is_refused(Under::sqlite().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn tables_grow() {
        super::tables_grow(Under::sqlite().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn own_columns_stay() {
        super::own_columns_stay(Under::sqlite().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn incompatible_columns_are_refused() {
        super::incompatible_columns_are_refused(Under::sqlite().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn append_only_tables() {
        super::append_only_tables(Under::sqlite().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn readers_are_not_blocked() {
        super::readers_are_not_blocked(Under::sqlite().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_taken_view_name() {
        super::a_taken_view_name(Under::sqlite().await).await;
    }
}

#[cfg(all(feature = "redshift", feature = "postgres"))]
mod on_redshift {
    use super::Under;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_table_that_is_gone_is_not_made_again_in_silence() {
        super::a_table_that_is_gone_is_not_made_again_in_silence(Under::redshift().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn keys_move_and_swap() {
        super::keys_move_and_swap(Under::redshift().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_becomes_whole_is_not_incomplete_any_more() {
        super::what_becomes_whole_is_not_incomplete_any_more(Under::redshift().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn partial_moves_come_again() {
        super::partial_moves_come_again(Under::redshift().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn tombstones_outlive_rows() {
        super::tombstones_outlive_rows(Under::redshift().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn two_loaders_race() {
        super::two_loaders_race(Under::redshift().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn another_log_is_refused() {
        super::another_log_is_refused(Under::redshift().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn append_only_tables() {
        super::append_only_tables(Under::redshift().await).await;
    }
}

#[cfg(feature = "postgres")]
mod on_postgres {
    use super::Under;

    #[tokio::test(flavor = "multi_thread")]
    async fn every_type_is_kept_exactly() {
        let shown = super::every_type_is_kept_exactly(Under::postgres().await).await;
        insta::assert_snapshot!(shown, @r##"
            yes: true | false | ∅ | ∅
            small: -32768 | 32767 | 0 | ∅
            big: -9223372036854775808 | 9223372036854775807 | 0 | ∅
            f4: NaN | Infinity | 0.1 | ∅
            f8: NaN | -Infinity | 0.1 | ∅
            dec: 9999999999999999999999999999.9999999999 | -0.0000000001 | 0.0000000000 | ∅
            wide: 9999999999999999999999999999999999999999999999999999999999999999999999999999 | -9999999999999999999999999999999999999999999999999999999999999999999999999999 | 10000 | ∅
            num: -12345678901234567890.0123450 | NaN | 0.0001 | ∅
            day: 1970-01-01 | 0044-03-15 BC | 9999-12-31 | ∅
            clock: 00:00:00 | 23:59:59.999999 | 24:00:00 | ∅
            span: 00:00:00 | -25:01:01.000001 | 1000:00:00 | ∅
            ts: 1970-01-01 00:00:00 | 1969-12-31 23:59:59.999999 | 3970-01-01 00:00:00 | ∅
            tstz: 1970-01-01 00:00:00+00 | 1969-12-31 23:59:59.999999+00 | 3970-01-01 00:00:00+00 | ∅
            word:  | it\'s \"quoted\" \\N \t\n | 日本 🎉 | ∅
            short:  | 12345678 | 日本 | ∅
            raw:  | 00FF | 616263 | ∅
            doc: {\"b\":1,  \"a\":[1.0,null]} | null | \"\\u0000\" | ∅
            uid: 00000000-0000-0000-0000-000000000000 | ffffffff-ffff-ffff-ffff-ffffffffffff | 123e4567-e89b-12d3-a456-426614174000 | ∅
            or"der: x | ∅ |  | ∅
            "##);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nul_in_text() {
        super::nul_in_text(Under::postgres().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_table_that_is_gone_is_not_made_again_in_silence() {
        super::a_table_that_is_gone_is_not_made_again_in_silence(Under::postgres().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn keys_move_and_swap() {
        super::keys_move_and_swap(Under::postgres().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn incomplete_rows_are_kept_apart() {
        super::incomplete_rows_are_kept_apart(Under::postgres().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_becomes_whole_is_not_incomplete_any_more() {
        super::what_becomes_whole_is_not_incomplete_any_more(Under::postgres().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn partial_moves_come_again() {
        super::partial_moves_come_again(Under::postgres().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn tombstones_outlive_rows() {
        super::tombstones_outlive_rows(Under::postgres().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn two_loaders_race() {
        super::two_loaders_race(Under::postgres().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn another_log_is_refused() {
        super::another_log_is_refused(Under::postgres().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn tables_grow() {
        super::tables_grow(Under::postgres().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn own_columns_stay() {
        super::own_columns_stay(Under::postgres().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn incompatible_columns_are_refused() {
        super::incompatible_columns_are_refused(Under::postgres().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn append_only_tables() {
        super::append_only_tables(Under::postgres().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn readers_are_not_blocked() {
        super::readers_are_not_blocked(Under::postgres().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_taken_view_name() {
        super::a_taken_view_name(Under::postgres().await).await;
    }
}
