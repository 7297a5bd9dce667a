fn main() {
    dataflow::failpoint::setup();
    dataflow::telemetry::init_log(None);
    let args: Vec<String> = std::env::args().collect();
    let loaded = match dataflow::config::load(std::path::Path::new(&args[2]), &[]) { Ok(l) => l, Err(m) => { eprintln!("{}", m.render(false)); std::process::exit(2) } };
    let options = dataflow::pipeline::Options { role: Default::default(), until_caught_up: args.iter().any(|a| a == "--until-caught-up") };
    let status = std::sync::Arc::new(dataflow::pipeline::status::Status::new("x"));
    let rt = tokio::runtime::Runtime::new().expect("rt");
    let r = rt.block_on(dataflow::pipeline::run(&loaded, &options, status.clone(), Default::default()));
    println!("{r:?}\n{}", serde_json::to_string_pretty(&status.snapshot()).expect("json"));
}
