mod joining;
mod reference;
mod splitting;
