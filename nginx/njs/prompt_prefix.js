// The text that prompt_prefix hashes: the first characters of the prompt, read from the JSON.
// lab/nginxconf/prompt.py computes the same; change both.

function prefix(r) {
    const characters = Number(r.variables.prompt_characters);
    const skip = Number(r.variables.prompt_skip);
    const body = r.requestText;   // also of a body that nginx holds in a file
    if (!body) {
        return r.variables.request_uri;
    }

    const texts = promptTexts(body);
    if (!texts.length) {
        return start(body, 0, characters);
    }

    const first = start(texts[0], skip, characters) || start(texts[0], 0, characters);
    const isShort = Array.from(first).length < characters;
    return isShort && texts.length > 1 ? first + start(texts[1], 0, characters) : first;
}

// Code points, not UTF-16 units: at most two units make one.
function start(text, skip, characters) {
    const end = skip + characters;
    return Array.from(text.slice(0, 2 * end)).slice(skip, end).join('');
}

function promptTexts(body) {
    let request;
    try {
        request = JSON.parse(body);
    } catch (e) {
        return [];
    }
    if (request === null || typeof request != 'object') {
        return [];
    }

    const texts = messageTexts(request.messages) || messageTexts(request.input);
    if (texts) {
        return texts;
    }

    const fields = [request.prompt, request.message, request.input];
    return fields.map(value => Array.isArray(value) ? value[0] : value).filter(isText).slice(0, 1);
}

function messageTexts(messages) {
    if (!Array.isArray(messages)) {
        return null;
    }
    const texts = [];
    messages.forEach(message => {
        const content = message === null || message === undefined ? null : message.content;
        const parts = Array.isArray(content) ? content : [{ text: content }];
        parts.forEach(part => {
            const text = part === null || part === undefined ? null : part.text;
            if (isText(text)) {
                texts.push(text);
            }
        });
    });
    return texts.length ? texts : null;
}

function isText(value) {
    return typeof value == 'string' && value != '';
}

export default { prefix };
