// All backends' metrics as one exposition: each family once, each sample with a label `backend`.

async function all(r) {
    const listed = await r.subrequest('/metrics/targets');
    const backends = JSON.parse(listed.responseText).map(target => target.labels.backend);
    const answers = await Promise.all(backends.map(name => r.subrequest('/metrics/' + name)));

    const families = {};   // the samples under their "# TYPE" line
    answers.forEach((answer, place) => {
        // one that is down has no samples, as for a Prometheus that asks it
        if (answer.status == 200) {
            collect(families, answer.responseText, backends[place]);
        }
    });

    r.headersOut['Content-Type'] = 'text/plain; version=0.0.4; charset=utf-8';
    const lines = Object.keys(families).map(type => [type].concat(families[type]).join('\n'));
    r.return(200, lines.join('\n') + '\n');
}

function collect(families, exposition, backend) {
    let samples = [];
    exposition.split('\n').forEach(line => {
        if (line.startsWith('#')) {
            samples = families[line] = families[line] || [];
        } else if (line) {
            samples.push(line.replace('{', '{backend="' + backend + '",'));
        }
    });
}

export default { all };
