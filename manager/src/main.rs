//! `ostiary-manager`: the pages and the REST interface for people, and the commands of the operator.

fn main() -> anyhow::Result<()> {
    ostiary_manager::commands::main()
}
