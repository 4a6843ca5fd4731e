# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_vecho_global_optspecs
    string join \n config= listen= admin-listen= upstream= workers= log-level= log-format= set= h/help V/version
end

function __fish_vecho_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_vecho_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_vecho_using_subcommand
    set -l cmd (__fish_vecho_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c vecho -n "__fish_vecho_needs_command" -l config -d 'Configuration file (TOML)' -r -F
complete -c vecho -n "__fish_vecho_needs_command" -l listen -d 'Address of the public port, which applications call [default: 127.0.0.1:7861]' -r
complete -c vecho -n "__fish_vecho_needs_command" -l admin-listen -d 'Address of the ops port: metrics, health, cache control [default: 127.0.0.1:7862]' -r
complete -c vecho -n "__fish_vecho_needs_command" -l upstream -d 'Base URL of the embeddings service, as in OPENAI_BASE_URL of an application; "mock:" is the built-in mock [default: https://api.openai.com/v1]' -r
complete -c vecho -n "__fish_vecho_needs_command" -l workers -d 'Number of threads that serve requests; by default one per processor' -r
complete -c vecho -n "__fish_vecho_needs_command" -l log-level -d 'Log level (error, warn, info, debug, trace, off) or filter, such as "info,vecho::upstream=debug" [default: info]' -r
complete -c vecho -n "__fish_vecho_needs_command" -l log-format -d 'Format of log lines: text, or json with one object per line [default: text]' -r
complete -c vecho -n "__fish_vecho_needs_command" -l set -d 'Value of any configuration key; may be repeated' -r
complete -c vecho -n "__fish_vecho_needs_command" -s h -l help -d 'Print help'
complete -c vecho -n "__fish_vecho_needs_command" -s V -l version -d 'Print version'
complete -c vecho -n "__fish_vecho_needs_command" -f -a "serve" -d 'Serve requests (the default)'
complete -c vecho -n "__fish_vecho_needs_command" -f -a "config" -d 'Print every configuration value in effect with its origin'
complete -c vecho -n "__fish_vecho_needs_command" -f -a "check" -d 'Check the configuration and print all faults'
complete -c vecho -n "__fish_vecho_needs_command" -f -a "doctor" -d 'Check the configuration, ports, upstream, disk, Redis, limits and clock; exit status 1 if there is a fault'
complete -c vecho -n "__fish_vecho_needs_command" -f -a "healthcheck" -d 'Check whether a running vecho is ready; times out after 2 s'
complete -c vecho -n "__fish_vecho_needs_command" -f -a "export" -d 'Export the cache of a running vecho, or else of its folder on disk, to a file'
complete -c vecho -n "__fish_vecho_needs_command" -f -a "import" -d 'Import an exported file; entries that exist are skipped, so an import can be repeated'
complete -c vecho -n "__fish_vecho_needs_command" -f -a "import-batch" -d 'Import the vectors of a batch job of the OpenAI API'
complete -c vecho -n "__fish_vecho_needs_command" -f -a "warm" -d 'Fetch the vectors of the texts in a file, so that they are cached'
complete -c vecho -n "__fish_vecho_needs_command" -f -a "find-mocks" -d 'Find vectors that vecho made up, by their watermark'
complete -c vecho -n "__fish_vecho_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c vecho -n "__fish_vecho_using_subcommand serve" -l config -d 'Configuration file (TOML)' -r -F
complete -c vecho -n "__fish_vecho_using_subcommand serve" -l listen -d 'Address of the public port, which applications call [default: 127.0.0.1:7861]' -r
complete -c vecho -n "__fish_vecho_using_subcommand serve" -l admin-listen -d 'Address of the ops port: metrics, health, cache control [default: 127.0.0.1:7862]' -r
complete -c vecho -n "__fish_vecho_using_subcommand serve" -l upstream -d 'Base URL of the embeddings service, as in OPENAI_BASE_URL of an application; "mock:" is the built-in mock [default: https://api.openai.com/v1]' -r
complete -c vecho -n "__fish_vecho_using_subcommand serve" -l workers -d 'Number of threads that serve requests; by default one per processor' -r
complete -c vecho -n "__fish_vecho_using_subcommand serve" -l log-level -d 'Log level (error, warn, info, debug, trace, off) or filter, such as "info,vecho::upstream=debug" [default: info]' -r
complete -c vecho -n "__fish_vecho_using_subcommand serve" -l log-format -d 'Format of log lines: text, or json with one object per line [default: text]' -r
complete -c vecho -n "__fish_vecho_using_subcommand serve" -l set -d 'Value of any configuration key; may be repeated' -r
complete -c vecho -n "__fish_vecho_using_subcommand serve" -s h -l help -d 'Print help'
complete -c vecho -n "__fish_vecho_using_subcommand config" -l format -d 'Output format' -r -f -a "text\t'Like TOML, with the origin of each value'
json\t'JSON'"
complete -c vecho -n "__fish_vecho_using_subcommand config" -l config -d 'Configuration file (TOML)' -r -F
complete -c vecho -n "__fish_vecho_using_subcommand config" -l listen -d 'Address of the public port, which applications call [default: 127.0.0.1:7861]' -r
complete -c vecho -n "__fish_vecho_using_subcommand config" -l admin-listen -d 'Address of the ops port: metrics, health, cache control [default: 127.0.0.1:7862]' -r
complete -c vecho -n "__fish_vecho_using_subcommand config" -l upstream -d 'Base URL of the embeddings service, as in OPENAI_BASE_URL of an application; "mock:" is the built-in mock [default: https://api.openai.com/v1]' -r
complete -c vecho -n "__fish_vecho_using_subcommand config" -l workers -d 'Number of threads that serve requests; by default one per processor' -r
complete -c vecho -n "__fish_vecho_using_subcommand config" -l log-level -d 'Log level (error, warn, info, debug, trace, off) or filter, such as "info,vecho::upstream=debug" [default: info]' -r
complete -c vecho -n "__fish_vecho_using_subcommand config" -l log-format -d 'Format of log lines: text, or json with one object per line [default: text]' -r
complete -c vecho -n "__fish_vecho_using_subcommand config" -l set -d 'Value of any configuration key; may be repeated' -r
complete -c vecho -n "__fish_vecho_using_subcommand config" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c vecho -n "__fish_vecho_using_subcommand check" -l config -d 'Configuration file (TOML)' -r -F
complete -c vecho -n "__fish_vecho_using_subcommand check" -l listen -d 'Address of the public port, which applications call [default: 127.0.0.1:7861]' -r
complete -c vecho -n "__fish_vecho_using_subcommand check" -l admin-listen -d 'Address of the ops port: metrics, health, cache control [default: 127.0.0.1:7862]' -r
complete -c vecho -n "__fish_vecho_using_subcommand check" -l upstream -d 'Base URL of the embeddings service, as in OPENAI_BASE_URL of an application; "mock:" is the built-in mock [default: https://api.openai.com/v1]' -r
complete -c vecho -n "__fish_vecho_using_subcommand check" -l workers -d 'Number of threads that serve requests; by default one per processor' -r
complete -c vecho -n "__fish_vecho_using_subcommand check" -l log-level -d 'Log level (error, warn, info, debug, trace, off) or filter, such as "info,vecho::upstream=debug" [default: info]' -r
complete -c vecho -n "__fish_vecho_using_subcommand check" -l log-format -d 'Format of log lines: text, or json with one object per line [default: text]' -r
complete -c vecho -n "__fish_vecho_using_subcommand check" -l set -d 'Value of any configuration key; may be repeated' -r
complete -c vecho -n "__fish_vecho_using_subcommand check" -s h -l help -d 'Print help'
complete -c vecho -n "__fish_vecho_using_subcommand doctor" -l model -d 'Model of that call' -r
complete -c vecho -n "__fish_vecho_using_subcommand doctor" -l config -d 'Configuration file (TOML)' -r -F
complete -c vecho -n "__fish_vecho_using_subcommand doctor" -l listen -d 'Address of the public port, which applications call [default: 127.0.0.1:7861]' -r
complete -c vecho -n "__fish_vecho_using_subcommand doctor" -l admin-listen -d 'Address of the ops port: metrics, health, cache control [default: 127.0.0.1:7862]' -r
complete -c vecho -n "__fish_vecho_using_subcommand doctor" -l upstream -d 'Base URL of the embeddings service, as in OPENAI_BASE_URL of an application; "mock:" is the built-in mock [default: https://api.openai.com/v1]' -r
complete -c vecho -n "__fish_vecho_using_subcommand doctor" -l workers -d 'Number of threads that serve requests; by default one per processor' -r
complete -c vecho -n "__fish_vecho_using_subcommand doctor" -l log-level -d 'Log level (error, warn, info, debug, trace, off) or filter, such as "info,vecho::upstream=debug" [default: info]' -r
complete -c vecho -n "__fish_vecho_using_subcommand doctor" -l log-format -d 'Format of log lines: text, or json with one object per line [default: text]' -r
complete -c vecho -n "__fish_vecho_using_subcommand doctor" -l set -d 'Value of any configuration key; may be repeated' -r
complete -c vecho -n "__fish_vecho_using_subcommand doctor" -l call -d 'Make one embeddings call to the upstream, which it bills; without it no check costs anything'
complete -c vecho -n "__fish_vecho_using_subcommand doctor" -l json -d 'Print JSON'
complete -c vecho -n "__fish_vecho_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c vecho -n "__fish_vecho_using_subcommand healthcheck" -l url -d 'URL to request; by default /readyz at the ops port' -r
complete -c vecho -n "__fish_vecho_using_subcommand healthcheck" -l config -d 'Configuration file (TOML)' -r -F
complete -c vecho -n "__fish_vecho_using_subcommand healthcheck" -l listen -d 'Address of the public port, which applications call [default: 127.0.0.1:7861]' -r
complete -c vecho -n "__fish_vecho_using_subcommand healthcheck" -l admin-listen -d 'Address of the ops port: metrics, health, cache control [default: 127.0.0.1:7862]' -r
complete -c vecho -n "__fish_vecho_using_subcommand healthcheck" -l upstream -d 'Base URL of the embeddings service, as in OPENAI_BASE_URL of an application; "mock:" is the built-in mock [default: https://api.openai.com/v1]' -r
complete -c vecho -n "__fish_vecho_using_subcommand healthcheck" -l workers -d 'Number of threads that serve requests; by default one per processor' -r
complete -c vecho -n "__fish_vecho_using_subcommand healthcheck" -l log-level -d 'Log level (error, warn, info, debug, trace, off) or filter, such as "info,vecho::upstream=debug" [default: info]' -r
complete -c vecho -n "__fish_vecho_using_subcommand healthcheck" -l log-format -d 'Format of log lines: text, or json with one object per line [default: text]' -r
complete -c vecho -n "__fish_vecho_using_subcommand healthcheck" -l set -d 'Value of any configuration key; may be repeated' -r
complete -c vecho -n "__fish_vecho_using_subcommand healthcheck" -s h -l help -d 'Print help'
complete -c vecho -n "__fish_vecho_using_subcommand export" -l config -d 'Configuration file (TOML)' -r -F
complete -c vecho -n "__fish_vecho_using_subcommand export" -l listen -d 'Address of the public port, which applications call [default: 127.0.0.1:7861]' -r
complete -c vecho -n "__fish_vecho_using_subcommand export" -l admin-listen -d 'Address of the ops port: metrics, health, cache control [default: 127.0.0.1:7862]' -r
complete -c vecho -n "__fish_vecho_using_subcommand export" -l upstream -d 'Base URL of the embeddings service, as in OPENAI_BASE_URL of an application; "mock:" is the built-in mock [default: https://api.openai.com/v1]' -r
complete -c vecho -n "__fish_vecho_using_subcommand export" -l workers -d 'Number of threads that serve requests; by default one per processor' -r
complete -c vecho -n "__fish_vecho_using_subcommand export" -l log-level -d 'Log level (error, warn, info, debug, trace, off) or filter, such as "info,vecho::upstream=debug" [default: info]' -r
complete -c vecho -n "__fish_vecho_using_subcommand export" -l log-format -d 'Format of log lines: text, or json with one object per line [default: text]' -r
complete -c vecho -n "__fish_vecho_using_subcommand export" -l set -d 'Value of any configuration key; may be repeated' -r
complete -c vecho -n "__fish_vecho_using_subcommand export" -l quiet -d 'Hide the progress display'
complete -c vecho -n "__fish_vecho_using_subcommand export" -s h -l help -d 'Print help'
complete -c vecho -n "__fish_vecho_using_subcommand import" -l config -d 'Configuration file (TOML)' -r -F
complete -c vecho -n "__fish_vecho_using_subcommand import" -l listen -d 'Address of the public port, which applications call [default: 127.0.0.1:7861]' -r
complete -c vecho -n "__fish_vecho_using_subcommand import" -l admin-listen -d 'Address of the ops port: metrics, health, cache control [default: 127.0.0.1:7862]' -r
complete -c vecho -n "__fish_vecho_using_subcommand import" -l upstream -d 'Base URL of the embeddings service, as in OPENAI_BASE_URL of an application; "mock:" is the built-in mock [default: https://api.openai.com/v1]' -r
complete -c vecho -n "__fish_vecho_using_subcommand import" -l workers -d 'Number of threads that serve requests; by default one per processor' -r
complete -c vecho -n "__fish_vecho_using_subcommand import" -l log-level -d 'Log level (error, warn, info, debug, trace, off) or filter, such as "info,vecho::upstream=debug" [default: info]' -r
complete -c vecho -n "__fish_vecho_using_subcommand import" -l log-format -d 'Format of log lines: text, or json with one object per line [default: text]' -r
complete -c vecho -n "__fish_vecho_using_subcommand import" -l set -d 'Value of any configuration key; may be repeated' -r
complete -c vecho -n "__fish_vecho_using_subcommand import" -l quiet -d 'Hide the progress display'
complete -c vecho -n "__fish_vecho_using_subcommand import" -s h -l help -d 'Print help'
complete -c vecho -n "__fish_vecho_using_subcommand import-batch" -l namespace -d 'Namespace of the cache, as in the header x-vecho-namespace' -r
complete -c vecho -n "__fish_vecho_using_subcommand import-batch" -l created-at -d 'Time at which the job was created, as `created_at` of its batch; by default that of the file of requests' -r
complete -c vecho -n "__fish_vecho_using_subcommand import-batch" -l config -d 'Configuration file (TOML)' -r -F
complete -c vecho -n "__fish_vecho_using_subcommand import-batch" -l listen -d 'Address of the public port, which applications call [default: 127.0.0.1:7861]' -r
complete -c vecho -n "__fish_vecho_using_subcommand import-batch" -l admin-listen -d 'Address of the ops port: metrics, health, cache control [default: 127.0.0.1:7862]' -r
complete -c vecho -n "__fish_vecho_using_subcommand import-batch" -l upstream -d 'Base URL of the embeddings service, as in OPENAI_BASE_URL of an application; "mock:" is the built-in mock [default: https://api.openai.com/v1]' -r
complete -c vecho -n "__fish_vecho_using_subcommand import-batch" -l workers -d 'Number of threads that serve requests; by default one per processor' -r
complete -c vecho -n "__fish_vecho_using_subcommand import-batch" -l log-level -d 'Log level (error, warn, info, debug, trace, off) or filter, such as "info,vecho::upstream=debug" [default: info]' -r
complete -c vecho -n "__fish_vecho_using_subcommand import-batch" -l log-format -d 'Format of log lines: text, or json with one object per line [default: text]' -r
complete -c vecho -n "__fish_vecho_using_subcommand import-batch" -l set -d 'Value of any configuration key; may be repeated' -r
complete -c vecho -n "__fish_vecho_using_subcommand import-batch" -l quiet -d 'Hide the progress display'
complete -c vecho -n "__fish_vecho_using_subcommand import-batch" -s h -l help -d 'Print help'
complete -c vecho -n "__fish_vecho_using_subcommand warm" -l model -d 'Model of the requests' -r
complete -c vecho -n "__fish_vecho_using_subcommand warm" -l dimensions -d 'Dimensions of the vectors; by default those of the model' -r
complete -c vecho -n "__fish_vecho_using_subcommand warm" -l namespace -d 'Namespace of the cache, as in the header x-vecho-namespace' -r
complete -c vecho -n "__fish_vecho_using_subcommand warm" -l batch -d 'Maximum number of inputs per request' -r
complete -c vecho -n "__fish_vecho_using_subcommand warm" -l concurrency -d 'Maximum number of requests in flight' -r
complete -c vecho -n "__fish_vecho_using_subcommand warm" -l chunk -d 'Read each file as one document, divided into chunks of this number of tokens (`cl100k_base`)' -r
complete -c vecho -n "__fish_vecho_using_subcommand warm" -l overlap -d 'Tokens that a chunk shares with the chunk before it' -r
complete -c vecho -n "__fish_vecho_using_subcommand warm" -l state -d 'File with the state of the job; by default FILE.batch-state' -r -F
complete -c vecho -n "__fish_vecho_using_subcommand warm" -l poll -d 'Time between two requests for the state of a batch' -r
complete -c vecho -n "__fish_vecho_using_subcommand warm" -l batch-requests -d 'Maximum number of requests per batch' -r
complete -c vecho -n "__fish_vecho_using_subcommand warm" -l batch-tokens -d 'Maximum number of tokens per batch, for an account with a low limit of enqueued tokens' -r
complete -c vecho -n "__fish_vecho_using_subcommand warm" -l batch-model -d 'Model of the Batch API, if its name differs, such as a deployment of Azure' -r
complete -c vecho -n "__fish_vecho_using_subcommand warm" -l path -d 'Path and query that applications request, such as those of an Azure deployment' -r
complete -c vecho -n "__fish_vecho_using_subcommand warm" -l config -d 'Configuration file (TOML)' -r -F
complete -c vecho -n "__fish_vecho_using_subcommand warm" -l listen -d 'Address of the public port, which applications call [default: 127.0.0.1:7861]' -r
complete -c vecho -n "__fish_vecho_using_subcommand warm" -l admin-listen -d 'Address of the ops port: metrics, health, cache control [default: 127.0.0.1:7862]' -r
complete -c vecho -n "__fish_vecho_using_subcommand warm" -l upstream -d 'Base URL of the embeddings service, as in OPENAI_BASE_URL of an application; "mock:" is the built-in mock [default: https://api.openai.com/v1]' -r
complete -c vecho -n "__fish_vecho_using_subcommand warm" -l workers -d 'Number of threads that serve requests; by default one per processor' -r
complete -c vecho -n "__fish_vecho_using_subcommand warm" -l log-level -d 'Log level (error, warn, info, debug, trace, off) or filter, such as "info,vecho::upstream=debug" [default: info]' -r
complete -c vecho -n "__fish_vecho_using_subcommand warm" -l log-format -d 'Format of log lines: text, or json with one object per line [default: text]' -r
complete -c vecho -n "__fish_vecho_using_subcommand warm" -l set -d 'Value of any configuration key; may be repeated' -r
complete -c vecho -n "__fish_vecho_using_subcommand warm" -l quiet -d 'Hide the progress display'
complete -c vecho -n "__fish_vecho_using_subcommand warm" -l text -d 'Read each line as plain text, also if it looks like JSON'
complete -c vecho -n "__fish_vecho_using_subcommand warm" -l batch-api -d 'Send what is not cached through the Batch API of the upstream, at half the price and within a day'
complete -c vecho -n "__fish_vecho_using_subcommand warm" -l yes -d 'Send without asking'
complete -c vecho -n "__fish_vecho_using_subcommand warm" -l beyond-capacity -d 'Send with --yes although the cache cannot hold all vectors'
complete -c vecho -n "__fish_vecho_using_subcommand warm" -l retry-failed -d 'Send inputs again that failed in an earlier job of this state file'
complete -c vecho -n "__fish_vecho_using_subcommand warm" -l keep-files -d 'Keep the uploaded files at the service'
complete -c vecho -n "__fish_vecho_using_subcommand warm" -s h -l help -d 'Print help'
complete -c vecho -n "__fish_vecho_using_subcommand find-mocks" -l config -d 'Configuration file (TOML)' -r -F
complete -c vecho -n "__fish_vecho_using_subcommand find-mocks" -l listen -d 'Address of the public port, which applications call [default: 127.0.0.1:7861]' -r
complete -c vecho -n "__fish_vecho_using_subcommand find-mocks" -l admin-listen -d 'Address of the ops port: metrics, health, cache control [default: 127.0.0.1:7862]' -r
complete -c vecho -n "__fish_vecho_using_subcommand find-mocks" -l upstream -d 'Base URL of the embeddings service, as in OPENAI_BASE_URL of an application; "mock:" is the built-in mock [default: https://api.openai.com/v1]' -r
complete -c vecho -n "__fish_vecho_using_subcommand find-mocks" -l workers -d 'Number of threads that serve requests; by default one per processor' -r
complete -c vecho -n "__fish_vecho_using_subcommand find-mocks" -l log-level -d 'Log level (error, warn, info, debug, trace, off) or filter, such as "info,vecho::upstream=debug" [default: info]' -r
complete -c vecho -n "__fish_vecho_using_subcommand find-mocks" -l log-format -d 'Format of log lines: text, or json with one object per line [default: text]' -r
complete -c vecho -n "__fish_vecho_using_subcommand find-mocks" -l set -d 'Value of any configuration key; may be repeated' -r
complete -c vecho -n "__fish_vecho_using_subcommand find-mocks" -s h -l help -d 'Print help'
complete -c vecho -n "__fish_vecho_using_subcommand help; and not __fish_seen_subcommand_from serve config check doctor healthcheck export import import-batch warm find-mocks help" -f -a "serve" -d 'Serve requests (the default)'
complete -c vecho -n "__fish_vecho_using_subcommand help; and not __fish_seen_subcommand_from serve config check doctor healthcheck export import import-batch warm find-mocks help" -f -a "config" -d 'Print every configuration value in effect with its origin'
complete -c vecho -n "__fish_vecho_using_subcommand help; and not __fish_seen_subcommand_from serve config check doctor healthcheck export import import-batch warm find-mocks help" -f -a "check" -d 'Check the configuration and print all faults'
complete -c vecho -n "__fish_vecho_using_subcommand help; and not __fish_seen_subcommand_from serve config check doctor healthcheck export import import-batch warm find-mocks help" -f -a "doctor" -d 'Check the configuration, ports, upstream, disk, Redis, limits and clock; exit status 1 if there is a fault'
complete -c vecho -n "__fish_vecho_using_subcommand help; and not __fish_seen_subcommand_from serve config check doctor healthcheck export import import-batch warm find-mocks help" -f -a "healthcheck" -d 'Check whether a running vecho is ready; times out after 2 s'
complete -c vecho -n "__fish_vecho_using_subcommand help; and not __fish_seen_subcommand_from serve config check doctor healthcheck export import import-batch warm find-mocks help" -f -a "export" -d 'Export the cache of a running vecho, or else of its folder on disk, to a file'
complete -c vecho -n "__fish_vecho_using_subcommand help; and not __fish_seen_subcommand_from serve config check doctor healthcheck export import import-batch warm find-mocks help" -f -a "import" -d 'Import an exported file; entries that exist are skipped, so an import can be repeated'
complete -c vecho -n "__fish_vecho_using_subcommand help; and not __fish_seen_subcommand_from serve config check doctor healthcheck export import import-batch warm find-mocks help" -f -a "import-batch" -d 'Import the vectors of a batch job of the OpenAI API'
complete -c vecho -n "__fish_vecho_using_subcommand help; and not __fish_seen_subcommand_from serve config check doctor healthcheck export import import-batch warm find-mocks help" -f -a "warm" -d 'Fetch the vectors of the texts in a file, so that they are cached'
complete -c vecho -n "__fish_vecho_using_subcommand help; and not __fish_seen_subcommand_from serve config check doctor healthcheck export import import-batch warm find-mocks help" -f -a "find-mocks" -d 'Find vectors that vecho made up, by their watermark'
complete -c vecho -n "__fish_vecho_using_subcommand help; and not __fish_seen_subcommand_from serve config check doctor healthcheck export import import-batch warm find-mocks help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
