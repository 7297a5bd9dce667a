//! Which SQL functions and types an expression may use: those whose result depends on their arguments alone.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion_common::config::ConfigOptions;
use datafusion_common::{Result, TableReference, plan_err};
use datafusion_expr::planner::{ContextProvider, ExprPlanner, TypePlanner};
use datafusion_expr::{AggregateUDF, HigherOrderUDF, ScalarUDF, TableSource, Volatility, WindowUDF};
use datafusion_functions::core::planner::CoreFunctionPlanner;
use datafusion_functions::datetime::planner::DatetimeFunctionPlanner;
use datafusion_functions::unicode::planner::UnicodeFunctionPlanner;
use datafusion_sql::sqlparser::ast;

/// Functions that tell about the engine instead of their arguments: their results change with its version.
const ENGINE: [&str; 4] = ["version", "arrow_typeof", "arrow_metadata", "arrow_field"];

/// Functions that answer null instead of failing when they leave their range (`date_bin` for years after 2262).
const SILENT: [&str; 1] = ["date_bin"];

/// Aggregates that people may try, for a better message.
const AGGREGATES: [&str; 14] = [
    "sum",
    "count",
    "avg",
    "mean",
    "min",
    "max",
    "median",
    "stddev",
    "variance",
    "array_agg",
    "string_agg",
    "bool_and",
    "bool_or",
    "first_value",
];

/// What a function's name stands for.
pub(super) enum Known {
    /// A function of its arguments.
    Scalar(Arc<ScalarUDF>),
    /// One whose result depends on the clock, on chance or on the engine.
    Clock,
    /// One that needs many rows.
    Aggregate,
    /// Nothing.
    No,
}

static FUNCTIONS: LazyLock<BTreeMap<String, Arc<ScalarUDF>>> = LazyLock::new(|| {
    let mut functions = BTreeMap::new();
    let functions_of_the_engine = datafusion_functions::all_default_functions();
    for function in functions_of_the_engine.into_iter().filter(|function| !SILENT.contains(&function.name())) {
        for alias in function.aliases() {
            functions.insert(alias.to_lowercase(), Arc::clone(&function));
        }
        functions.insert(function.name().to_lowercase(), function);
    }
    functions
});

/// What `name` stands for, in any case.
pub(super) fn lookup(name: &str) -> Known {
    let name = name.to_lowercase();
    match FUNCTIONS.get(&name) {
        Some(function) if is_pure(&name, function) => Known::Scalar(Arc::clone(function)),
        Some(_) => Known::Clock,
        None if AGGREGATES.contains(&name.as_str()) => Known::Aggregate,
        None => Known::No,
    }
}

fn is_pure(name: &str, function: &ScalarUDF) -> bool {
    function.signature().volatility == Volatility::Immutable && !ENGINE.contains(&name)
}

/// The names that may be used.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.iter().filter(|(name, function)| is_pure(name, function)).map(|(name, _)| name.as_str())
}

/// What the SQL planner asks.
pub(super) struct Provider {
    options: ConfigOptions,
    planners: Vec<Arc<dyn ExprPlanner>>,
}

impl Provider {
    /// A provider without tables.
    pub fn new() -> Self {
        Self {
            options: ConfigOptions::new(),
            planners: vec![
                Arc::new(CoreFunctionPlanner::default()),
                Arc::new(DatetimeFunctionPlanner),
                Arc::new(UnicodeFunctionPlanner),
            ],
        }
    }
}

impl ContextProvider for Provider {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        plan_err!("there is no table `{name}` in an expression")
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(Microseconds))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        match lookup(name) {
            Known::Scalar(function) => Some(function),
            Known::Clock | Known::Aggregate | Known::No => None,
        }
    }

    fn get_higher_order_meta(&self, _name: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, _name: &str) -> Option<Arc<AggregateUDF>> {
        None
    }

    fn get_window_meta(&self, _name: &str) -> Option<Arc<WindowUDF>> {
        None
    }

    fn get_variable_type(&self, _names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.options
    }

    fn udf_names(&self) -> Vec<String> {
        names().map(str::to_owned).collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udwf_names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Times have microseconds, as in contracts. The engine's own nanoseconds end in the year 2262, and sources do say
/// `9999-12-31`.
#[derive(Debug)]
struct Microseconds;

impl TypePlanner for Microseconds {
    fn plan_type_field(&self, sql_type: &ast::DataType) -> Result<Option<FieldRef>> {
        use ast::{ExactNumberInfo, TimezoneInfo};
        let data_type = match sql_type {
            ast::DataType::Timestamp(None, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
                DataType::Timestamp(TimeUnit::Microsecond, None)
            }
            ast::DataType::Timestamp(None, TimezoneInfo::Tz | TimezoneInfo::WithTimeZone) => {
                DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
            }
            ast::DataType::Time(None, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
                DataType::Time64(TimeUnit::Microsecond)
            }
            ast::DataType::Decimal(ExactNumberInfo::None) | ast::DataType::Numeric(ExactNumberInfo::None) => {
                return plan_err!("{sql_type} needs its digits here, e.g. DECIMAL(38, 10)");
            }
            _ => return Ok(None),
        };
        Ok(Some(Arc::new(Field::new("type", data_type, true))))
    }
}
