"""What the made-up customers of a bank say, by intent, and what they think of it, by topic and mood.

`{slot}` is personal data of `pipeline.log_people`; `{it}` in an opinion is the topic.
"""

from __future__ import annotations

SAYS: dict[str, tuple[str, ...]] = {
    "openinggreeting": ("Hello", "Hi there", "good morning", "Hey", "good evening to you", "hi, is somebody there?"),
    "closinggreeting": ("Bye", "have a nice day", "goodbye then", "see you", "good night", "bye bye"),
    "thankyou": ("Thank you", "thanks a lot", "many thanks for the help", "great, thanks", "thank you so much"),
    "confirmation": ("Yes", "yes please", "correct", "that is right", "sure, go ahead", "ok do that", "yep"),
    "rejection": ("No", "no, that is all", "nope", "nothing else", "no I do not want that", "not now"),
    "outofdomain": (
        "do you know if it rains tomorrow",
        "can you recommend a restaurant",
        "who won the game last night",
        "I also need a train ticket",
        "tell me a joke",
    ),
    "contentonly": (
        "my name is {name}.",
        "This is {name}.",
        "the card ends in {card4}.",
        "last four of my ssn are {ssn4}.",
        "I live at {address}.",
        "my email is {email}.",
        "you can reach me at {phone}.",
        "date of birth {dob}.",
        "I paid with card {card}.",
        "checking account",
        "it was last week",
        "about two hundred dollars",
    ),
}
ASKS: dict[str, tuple[str, ...]] = {
    "checkbalance": (
        "I want to check my balance",
        "how much money is in my account",
        "what is the balance of my savings account",
        "can you tell me how much I have left",
    ),
    "checkoffereligibility": (
        "am I eligible for the new card offer",
        "do I qualify for the credit card you advertise",
        "I got a letter about an offer, can I get it",
        "which offers can I apply for",
    ),
    "closeaccount": (
        "I want to close my account",
        "please cancel my account with you",
        "how do I shut down my checking account",
        "I would like to end my account",
    ),
    "disputecharge": (
        "there is a charge on my card that I did not make",
        "I want to dispute a transaction",
        "somebody charged me twice",
        "I do not recognise a payment on my statement",
    ),
    "getroutingnumber": (
        "what is your routing number",
        "I need the routing number of the bank",
        "which routing number do I use for direct deposit",
        "give me the routing number please",
    ),
    "orderchecks": (
        "I need to order checks",
        "can you send me a new checkbook",
        "I ran out of checks",
        "please order a box of checks for me",
    ),
    "replacecard": (
        "my card is damaged and I need a new one",
        "please replace my debit card",
        "the chip of my card is broken, can I get a replacement",
        "I need a replacement card",
    ),
    "reportlostcard": (
        "I lost my card",
        "my credit card was stolen",
        "I can't find my debit card anywhere",
        "I want to report a lost card",
    ),
    "transfermoney": (
        "I want to transfer money",
        "please move money from savings to checking",
        "can you send 300 dollars to my other account",
        "I need to make a transfer",
    ),
    "updateaddress": (
        "I moved and need to update my address",
        "please change my mailing address",
        "my address is not right any more",
        "I have a new home address for your records",
    ),
}
JOINED = (
    "checkbalance<div>closeaccount",
    "checkbalance<div>orderchecks",
    "checkbalance<div>transfermoney",
    "closeaccount<div>reportlostcard",
    "closeaccount<div>transfermoney",
    "replacecard<div>reportlostcard",
)

TOPICS: dict[str, tuple[str, ...]] = {
    "fees": ("the monthly fee", "the new pricing", "the overdraft charge", "the foreign exchange fee"),
    "app": ("the mobile app", "the new app version", "logging in on my phone", "the app's home screen"),
    "service": ("the help line", "the staff at the branch", "customer support", "the chat agent"),
    "cards": ("my credit card", "the new debit card", "contactless payment", "the card delivery"),
    "loans": ("the mortgage rate", "my loan application", "the car loan", "the credit decision"),
}
MOODS: dict[str, tuple[str, ...]] = {
    "positive": (
        "really happy with {it}, well done",
        "{it} is excellent and easy",
        "I love {it}, best bank so far",
        "great experience with {it} this week",
        "{it} got so much better, thank you",
    ),
    "neutral": (
        "is there any news about {it}?",
        "{it} was mentioned in the newsletter",
        "does anybody know how {it} works",
        "just asking about {it}",
        "{it} changed on Monday, noted",
    ),
    "negative": (
        "{it} is a disgrace, I am furious",
        "very disappointed with {it}",
        "{it} is terrible and nobody cares",
        "avoid them, {it} is the worst",
        "fed up with {it}, thinking of leaving",
    ),
}
ABOUT = (
    "my name is {name}.",
    "you can reach me at {phone}.",
    "my email is {email}.",
    "I live at {address}.",
    "my customer number is {customer}.",
)
