//! A SQL expression bound to columns: planned once, evaluated over whole batches, and one bad row spoils only itself.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt32Array, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, concat, take};
use arrow::datatypes::{DataType, Decimal128Type, Decimal256Type, Field, Schema, SchemaRef, TimeUnit};
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{DFSchema, DataFusionError};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::simplify::SimplifyContext;
use datafusion_expr::{Expr, ExprSchemable, Operator};
use datafusion_optimizer::simplify_expressions::ExprSimplifier;
use datafusion_physical_expr::expressions::BinaryExpr;
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion_sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use datafusion_sql::sqlparser::ast::{self, Spanned};

use crate::contract::Type;
use crate::error::{Error, ErrorKind, Result};

use super::Fault;
use super::functions::Provider;
use super::scope::Scope;
use super::syntax::Syntax;

/// An expression over the columns of one scope.
pub(super) struct Expression {
    /// What the topology says.
    pub text: String,
    /// The contract type of the result.
    pub data_type: Type,
    /// The positions of the columns that it reads, ascending.
    pub columns: Vec<usize>,
    /// The source columns that it depends on.
    pub sources: BTreeSet<usize>,
    schema: SchemaRef,
    physical: Arc<dyn PhysicalExpr>,
}

/// Results of an expression, one per row asked for.
pub(super) struct Evaluated {
    /// The values; null where the row failed.
    pub values: ArrayRef,
    /// Which of the rows failed (position among those asked for), and why.
    pub failures: Vec<(usize, String)>,
}

impl Expression {
    /// Plans `syntax` over the columns of `scope`.
    pub fn bind(syntax: &Syntax, scope: &Scope) -> Result<Self, Fault> {
        let names: Vec<&str> = scope.names().collect();
        let tree = syntax.resolve(&names)?;
        let fields: Vec<Field> =
            scope.columns.iter().map(|c| Field::new(&c.column.name, c.column.data_type.arrow(), true)).collect();
        let schema = DFSchema::from_unqualified_fields(fields.into(), HashMap::new())
            .map_err(|error| syntax.fault(None, first_line(&error)))?;
        let planned = plan(&tree, scope, &schema).map_err(|message| locate(syntax, &tree, scope, &schema, message))?;
        let data_type = result_type(&planned, scope, &schema).map_err(|message| {
            syntax.fault(Some(tree.span().start), message).help("give it a type with CAST(… AS …)")
        })?;
        let columns = read_columns(&planned, scope);
        let reduced = Schema::new(columns.iter().map(|i| schema.field(*i).clone()).collect::<Vec<_>>());
        let physical = physical(&planned, &reduced).map_err(|message| syntax.fault(None, message))?;
        let bound = Self {
            text: syntax.text.clone(),
            data_type,
            sources: scope.sources(&columns),
            columns,
            schema: Arc::new(reduced),
            physical,
        };
        // What fails without any row, like a date that is none, fails for all.
        match bound.run(&RecordBatch::new_empty(Arc::clone(&bound.schema))) {
            Ok(_) => Ok(bound),
            Err(error) => Err(syntax.fault(Some(tree.span().start), first_line(&error))),
        }
    }

    /// Like [`Expression::bind`], for a condition.
    pub fn condition(syntax: &Syntax, scope: &Scope) -> Result<Self, Fault> {
        let bound = Self::bind(syntax, scope)?;
        if bound.data_type == Type::Boolean {
            return Ok(bound);
        }
        Err(syntax
            .fault(None, format!("a condition is wanted, but `{}` is {}", bound.text, bound.data_type))
            .offset(Some(0))
            .help("compare it with something, e.g. `… > 0` or `… IS NOT NULL`"))
    }

    /// Evaluates over these rows of the scope's columns (`None` = all `len` of them). The result has the Arrow layout
    /// of [`Expression::data_type`].
    pub fn evaluate(&self, columns: &[ArrayRef], len: usize, rows: Option<&UInt32Array>) -> Result<Evaluated> {
        let broken = |error: arrow::error::ArrowError| {
            Error::new(ErrorKind::Internal, format!("take the columns of `{}`", self.text)).because(error)
        };
        let read = self.columns.iter().map(|index| match rows {
            Some(rows) => take(&columns[*index], rows, None),
            None => Ok(Arc::clone(&columns[*index])),
        });
        let read = read.collect::<Result<Vec<_>, _>>().map_err(broken)?;
        let count = rows.map_or(len, UInt32Array::len);
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), read, &options).map_err(broken)?;
        let mut parts = Vec::new();
        let mut failures = Vec::new();
        self.bisect(&batch, 0, &mut parts, &mut failures);
        let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        let values = match parts.as_slice() {
            [] => new_null_array(&self.data_type.arrow(), 0),
            parts => concat(parts).map_err(broken)?,
        };
        Ok(Evaluated { values, failures })
    }

    /// A batch that fails is halved until the rows that fail stand alone, so that what becomes of a row never depends on
    /// its neighbours.
    fn bisect(
        &self,
        batch: &RecordBatch,
        offset: usize,
        parts: &mut Vec<ArrayRef>,
        failures: &mut Vec<(usize, String)>,
    ) {
        let count = batch.num_rows();
        if count == 0 {
            return;
        }
        match self.run(batch) {
            Ok(values) => parts.push(values),
            Err(error) if count == 1 => {
                parts.push(new_null_array(&self.data_type.arrow(), 1));
                failures.push((offset, first_line(&error)));
            }
            Err(_) => {
                let half = count / 2;
                self.bisect(&batch.slice(0, half), offset, parts, failures);
                self.bisect(&batch.slice(half, count - half), offset + half, parts, failures);
            }
        }
    }

    fn run(&self, batch: &RecordBatch) -> Result<ArrayRef, DataFusionError> {
        let values = self.physical.evaluate(batch)?.into_array(batch.num_rows())?;
        let values = to_layout(&values, self.data_type)?;
        check_digits(&values, self.data_type)?;
        Ok(values)
    }
}

/// Casts an engine's result to the layout of the contract type; a value that does not fit is an error.
fn to_layout(values: &ArrayRef, data_type: Type) -> Result<ArrayRef, DataFusionError> {
    let wanted = data_type.arrow();
    if *values.data_type() == wanted {
        return Ok(Arc::clone(values));
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let values = match values.data_type() {
        DataType::Duration(_) => cast_with_options(values, &DataType::Duration(TimeUnit::Microsecond), &options)?,
        _ => Arc::clone(values),
    };
    Ok(cast_with_options(&values, &wanted, &options)?)
}

/// The engine's decimal arithmetic looks at the width of its integers only, not at the digits that the type promises.
fn check_digits(values: &ArrayRef, data_type: Type) -> Result<(), DataFusionError> {
    let Type::Decimal { precision, .. } = data_type else { return Ok(()) };
    match values.data_type() {
        DataType::Decimal128(..) => values.as_primitive::<Decimal128Type>().validate_decimal_precision(precision)?,
        _ => values.as_primitive::<Decimal256Type>().validate_decimal_precision(precision)?,
    }
    Ok(())
}

/// SQL tree to a typed, simplified logical expression.
fn plan(tree: &ast::Expr, scope: &Scope, schema: &DFSchema) -> Result<Expr, String> {
    let provider = Provider::new();
    let options = ParserOptions::new()
        .with_enable_ident_normalization(false)
        .with_map_string_types_to_utf8view(false)
        // 1.5 is exact.
        .with_parse_float_as_decimal(true);
    let planner = SqlToRel::new_with_options(&provider, options);
    let expr =
        planner.sql_to_expr(tree.clone(), schema, &mut PlannerContext::new()).map_err(|error| first_line(&error))?;
    refuse_bare_numeric(&expr, scope)?;
    refuse_text_as_number(&expr, schema)?;
    let context = SimplifyContext::builder()
        .with_schema(Arc::new(schema.clone()))
        .with_config_options(Arc::new(ConfigOptions::new()))
        .build();
    let simplifier = ExprSimplifier::new(context);
    let expr = simplifier.coerce(expr, schema).map_err(|error| first_line(&error))?;
    let expr = simplifier.simplify(expr).map_err(|error| first_line(&error))?;
    physical(&expr, schema.as_arrow())?;
    Ok(expr)
}

/// A number without a fixed scale is text to the engine: comparing it would compare letters.
fn refuse_bare_numeric(expr: &Expr, scope: &Scope) -> Result<(), String> {
    if matches!(expr, Expr::Column(_)) {
        return Ok(());
    }
    let mut found = None;
    let visited = expr.apply(|part| {
        if matches!(part, Expr::Cast(_) | Expr::TryCast(_) | Expr::IsNull(_) | Expr::IsNotNull(_)) {
            let child_is_column = part.apply_children(|child| {
                Ok(if matches!(child, Expr::Column(_)) { TreeNodeRecursion::Jump } else { TreeNodeRecursion::Stop })
            })?;
            return Ok(if child_is_column == TreeNodeRecursion::Stop {
                TreeNodeRecursion::Continue
            } else {
                TreeNodeRecursion::Jump
            });
        }
        if let Expr::Column(column) = part
            && scope.columns.iter().any(|c| c.column.name == column.name && c.column.data_type == Type::Numeric)
        {
            found = Some(column.name.clone());
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    visited.map_err(|error| first_line(&error))?;
    match found {
        None => Ok(()),
        Some(name) => Err(format!(
            "column {name} is numeric without a fixed scale, so say how many digits count: CAST({name} AS DECIMAL(38, 10))"
        )),
    }
}

/// The engine would read text as a number where it meets one, and every row whose text is none would be refused. Who
/// means that says so.
fn refuse_text_as_number(expr: &Expr, schema: &DFSchema) -> Result<(), String> {
    let mut found = None;
    let visited = expr.apply(|part| {
        if let Expr::BinaryExpr(binary) = part {
            let (left, right) = (binary.left.get_type(schema)?, binary.right.get_type(schema)?);
            let mixed = |text: &Expr, layout: &DataType, other: &DataType| {
                layout.is_string() && other.is_numeric() && !matches!(text, Expr::Literal(..))
            };
            if binary.op != Operator::StringConcat
                && (mixed(&binary.left, &left, &right) || mixed(&binary.right, &right, &left))
            {
                found = Some(format!(
                    "{} puts text and a number together: say which number the text is, e.g. CAST(… AS BIGINT)",
                    binary.op
                ));
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    });
    visited.map_err(|error| first_line(&error))?;
    found.map_or(Ok(()), Err)
}

/// Logical to physical; integer arithmetic that overflows fails instead of wrapping around.
fn physical(expr: &Expr, schema: &Schema) -> Result<Arc<dyn PhysicalExpr>, String> {
    let schema = DFSchema::try_from(schema.clone()).map_err(|error| first_line(&error))?;
    let made = create_physical_expr(expr, &schema, &ExecutionProps::new(), &PhysicalPlanningContext::default());
    let made = made.and_then(|physical| {
        physical.transform_up(|node| {
            Ok(match node.downcast_ref::<BinaryExpr>() {
                Some(binary) => Transformed::yes(Arc::new(binary.clone().with_fail_on_overflow(true)) as _),
                None => Transformed::no(node),
            })
        })
    });
    Ok(made.map_err(|error| first_line(&error))?.data)
}

/// The mistake with the position of the smallest part that fails by itself.
fn locate(syntax: &Syntax, tree: &ast::Expr, scope: &Scope, schema: &DFSchema, whole: String) -> Fault {
    for part in Syntax::parts(tree) {
        if let Err(message) = plan(&part, scope, schema) {
            return syntax.fault(Some(part.span().start), message);
        }
    }
    syntax.fault(Some(tree.span().start), whole)
}

fn read_columns(expr: &Expr, scope: &Scope) -> Vec<usize> {
    let refs = expr.column_refs();
    (0..scope.columns.len()).filter(|i| refs.iter().any(|r| r.name == scope.columns[*i].column.name)).collect()
}

/// The contract type of a result. A column alone keeps its type (a UUID stays one); everything else goes by its layout.
fn result_type(expr: &Expr, scope: &Scope, schema: &DFSchema) -> Result<Type, String> {
    if let Expr::Column(column) = expr
        && let Some(found) = scope.columns.iter().find(|c| c.column.name == column.name)
    {
        return Ok(found.column.data_type);
    }
    let layout = expr.get_type(schema).map_err(|error| first_line(&error))?;
    contract_type(&layout)
}

/// The narrowest contract type that holds every value of an Arrow type.
fn contract_type(layout: &DataType) -> Result<Type, String> {
    Ok(match layout {
        DataType::Boolean => Type::Boolean,
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => Type::SmallInt,
        DataType::UInt16 | DataType::Int32 => Type::Int,
        DataType::UInt32 | DataType::Int64 => Type::BigInt,
        DataType::UInt64 => Type::Decimal { precision: 20, scale: 0 },
        DataType::Float16 | DataType::Float32 => Type::Real,
        DataType::Float64 => Type::Double,
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => decimal_type(*precision, *scale)?,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Type::TEXT,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => Type::Binary,
        DataType::Date32 | DataType::Date64 => Type::Date,
        DataType::Time32(_) | DataType::Time64(_) => Type::Time,
        DataType::Timestamp(_, None) => Type::Timestamp,
        DataType::Timestamp(_, Some(_)) => Type::TimestampTz,
        DataType::Duration(_) => Type::Duration,
        DataType::Dictionary(_, values) => contract_type(values)?,
        DataType::Null => return Err("the result is always null and has no type".into()),
        other => return Err(format!("the result is {other}, which no column can hold")),
    })
}

fn decimal_type(precision: u8, scale: i8) -> Result<Type, String> {
    let (digits, scale) =
        if scale < 0 { (i16::from(precision) - i16::from(scale), 0) } else { (i16::from(precision), scale) };
    match u8::try_from(digits.max(i16::from(scale))) {
        Ok(precision) if (1..=76).contains(&precision) => Ok(Type::Decimal { precision, scale }),
        _ => Err(format!("the result is a decimal of {digits} digits, and a column holds at most 76")),
    }
}

/// An engine's error without its prefixes, advice to its developers and lists.
fn first_line(error: &DataFusionError) -> String {
    let text = error.strip_backtrace();
    let mut line = text.lines().next().unwrap_or_default().trim();
    for prefix in [
        "Error during planning: ",
        "Execution error: ",
        "Arrow error: ",
        "This feature is not implemented: ",
        "Schema error: ",
        "Parser error: ",
        "Cast error: ",
        "Compute error: ",
        "Arithmetic overflow: ",
        "Invalid argument error: ",
    ] {
        line = line.strip_prefix(prefix).unwrap_or(line);
    }
    if let Some((node, _)) = line.strip_prefix("Unsupported ast node in sqltorel: ").and_then(|n| n.split_once(" {")) {
        return format!("{node} is not supported in expressions");
    }
    // Dumps of the tree, and advice to whoever builds the engine.
    [": Raw", " Hint: "]
        .iter()
        .fold(line, |line, cut| line.split(cut).next().unwrap_or(line))
        .trim_end_matches('.')
        .to_owned()
}
